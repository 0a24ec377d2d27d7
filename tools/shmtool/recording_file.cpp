#include "tools/shmtool/recording_file.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <span>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "ackring/limits.hpp"
#include "lib/client/event_text.hpp"
#include "lib/client/headers_codec.hpp"
#include "tools/common/json_text.hpp"

namespace ackring::tools {
namespace {

// All numbers are little-endian, as everywhere in ackring; lib/shm/format.hpp asserts that this machine is.
struct FileHeader {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t header_bytes;
  std::uint64_t started_unix_ns;
  std::uint64_t checksum;  // of the bytes before it
};
static_assert(sizeof(FileHeader) == 32 && compact_magic.size() == sizeof(FileHeader::magic));

enum class RecordKind : std::uint32_t {
  name = 1,   // the next number, from 0 on, stands for this topic or publisher
  event = 2,  // EventFields, then key, headers, payload
  end = 3,    // EndFields
};

struct RecordHead {
  std::uint32_t body_bytes;
  std::uint32_t kind;
  std::uint64_t checksum;
};
static_assert(sizeof(RecordHead) == 16);

struct EventFields {
  std::uint64_t published_unix_ns;
  std::uint64_t sequence;
  std::uint64_t delivery;
  std::uint32_t attempt;
  std::uint32_t topic;
  std::uint32_t publisher;
  std::uint32_t key_bytes;
  std::uint32_t headers_bytes;
  std::uint32_t payload_bytes;
};
static_assert(sizeof(EventFields) == 48);

struct EndFields {
  std::uint64_t events;
  std::uint64_t missed;
};
static_assert(sizeof(EndFields) == 16);

// A length beyond it is that of a damaged record. An event has so many bytes of payload, headers and key at most.
constexpr std::size_t most_body_bytes = limits::event_bytes + limits::key_bytes + (1u << 20);

// The seed holds what is not in the body: a record with another length or kind has another checksum.
std::uint64_t checksum_of(std::uint32_t kind, std::string_view body) {
  return XXH64(body.data(), body.size(), std::uint64_t{kind} << 32 | body.size());
}

template <class T>
void put(std::string& out, const T& value) {
  std::array<char, sizeof value> bytes;
  std::memcpy(bytes.data(), &value, sizeof value);
  out.append(bytes.data(), bytes.size());
}

template <class T>
T get(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

void put_record(RecordKind kind, std::string_view body, std::string& out) {
  const auto number = static_cast<std::uint32_t>(kind);
  put(out, RecordHead{static_cast<std::uint32_t>(body.size()), number, checksum_of(number, body)});
  out += body;
}

bool is_white(char c) noexcept { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

std::string number_text(std::uint64_t number) { return std::to_string(number); }

}  // namespace

std::string recorded_line(const RecordedEvent& recorded) {
  const Event& event = recorded.event;
  client::EventText text;
  text.topic = event.topic;
  text.key = event.key;
  text.headers_json = client::headers_json(event.headers);
  text.publisher = recorded.publisher;
  text.sequence = recorded.sequence;
  text.delivery = recorded.delivery;
  text.attempt = recorded.attempt;
  text.published_unix_ns = recorded.published_unix_ns;
  text.payload = event.payload;
  std::string line = client::event_line(text);

  std::string more;
  // Of `data` a string means its content, and white space around a value is nobody's.
  const std::string_view data = event.payload;
  const bool ambiguous = !data.empty() && (data.front() == '"' || is_white(data.front()) || is_white(data.back()));
  if (ambiguous && data.find_first_of("\r\n") == std::string_view::npos && is_json(data)) {
    more += ",\"data_base64\":\"" + base64_encode(data) + "\"";
  }
  if (!is_utf8(event.key)) more += ",\"key_base64\":\"" + base64_encode(event.key) + "\"";
  const bool plain = std::all_of(event.headers.begin(), event.headers.end(),
                                 [](const auto& header) { return is_utf8(header.first) && is_utf8(header.second); });
  if (!plain) {
    std::string pairs;
    for (const auto& [name, value] : event.headers) {
      pairs += (pairs.empty() ? "[\"" : ",[\"") + base64_encode(name) + "\",\"" + base64_encode(value) + "\"]";
    }
    more += ",\"headers_base64\":[" + pairs + "]";
  }
  if (!more.empty()) line.insert(line.size() - 2, more);  // before the closing brace and the line break
  return line;
}

void parse_exact_member(const std::string& name, std::string_view value, Event& event) {
  if (name == "key_base64") {
    event.key = base64_member(value, "key_base64");
  } else if (name == "headers_base64") {
    const auto wrong = [] {
      return std::invalid_argument(
          "'headers_base64' is not an array of pairs of base64: write [[\"bmFtZQ==\", \"dg==\"]]");
    };
    const auto pairs = nlohmann::json::parse(value);
    if (!pairs.is_array()) throw wrong();
    event.headers.clear();
    for (const auto& pair : pairs) {
      if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) throw wrong();
      auto header = base64_decode(pair[0].get<std::string>());
      auto content = base64_decode(pair[1].get<std::string>());
      if (!header || !content) throw wrong();
      event.headers.emplace_back(std::move(*header), std::move(*content));
    }
  }
}

void parse_recorded_line(std::string_view line, RecordedEvent& recorded) {
  recorded.published_unix_ns = 0;
  static const Event none;
  parse_event(line, none, recorded.event, [&recorded](const std::string& name, std::string_view value) {
    if (name != "published_ns") return parse_exact_member(name, value, recorded.event);
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), recorded.published_unix_ns);
    if (error != std::errc() || end != value.data() + value.size()) {
      throw std::invalid_argument("'published_ns' is not a time: write nanoseconds since 1970, digits only");
    }
  });
}

void CompactWriter::begin(std::uint64_t started_unix_ns, std::string& out) {
  FileHeader header{{}, compact_version, sizeof(FileHeader), started_unix_ns, 0};
  compact_magic.copy(header.magic.data(), header.magic.size());
  header.checksum = XXH64(&header, offsetof(FileHeader, checksum), 0);
  put(out, header);
}

std::uint32_t CompactWriter::name_number(const std::string& name, std::string& out) {
  const auto [at, fresh] = names_.try_emplace(name, static_cast<std::uint32_t>(names_.size()));
  if (fresh) put_record(RecordKind::name, name, out);
  return at->second;
}

void CompactWriter::add(const RecordedEvent& recorded, std::string& out) {
  const Event& event = recorded.event;
  EventFields fields{};
  fields.published_unix_ns = recorded.published_unix_ns;
  fields.sequence = recorded.sequence;
  fields.delivery = recorded.delivery;
  fields.attempt = recorded.attempt;
  fields.topic = name_number(event.topic, out);
  fields.publisher = name_number(recorded.publisher, out);
  fields.key_bytes = static_cast<std::uint32_t>(event.key.size());
  fields.headers_bytes = static_cast<std::uint32_t>(client::encoded_bytes(event.headers));
  fields.payload_bytes = static_cast<std::uint32_t>(event.payload.size());
  body_.clear();
  put(body_, fields);
  body_ += event.key;
  const std::size_t headers_at = body_.size();
  body_.resize(headers_at + fields.headers_bytes);
  client::encode_headers(event.headers, reinterpret_cast<std::byte*>(body_.data() + headers_at));
  body_ += event.payload;
  put_record(RecordKind::event, body_, out);
  ++events_;
}

void CompactWriter::end(std::uint64_t missed, std::string& out) const {
  std::string body;
  put(body, EndFields{events_, missed});
  put_record(RecordKind::end, body, out);
}

CompactReader::Step CompactReader::damaged(std::string why) {
  why_ = std::move(why);
  return Step::damaged;
}

CompactReader::Step CompactReader::take_header(std::string_view bytes) {
  const std::string_view magic = bytes.substr(0, compact_magic.size());
  if (magic != compact_magic.substr(0, magic.size())) return damaged("it does not begin as a compact recording does");
  if (bytes.size() < sizeof(FileHeader)) {
    needed_ = sizeof(FileHeader);
    return Step::more;
  }
  const auto header = get<FileHeader>(bytes);
  if (header.version != compact_version) {
    return damaged("its format has version " + number_text(header.version) + ", and this program reads version " +
                   number_text(compact_version));
  }
  if (header.checksum != XXH64(bytes.data(), offsetof(FileHeader, checksum), 0) ||
      header.header_bytes != sizeof(FileHeader)) {
    return damaged("the checksum of its header is wrong");
  }
  started_unix_ns_ = header.started_unix_ns;
  used_ += sizeof(FileHeader);
  offset_ += sizeof(FileHeader);
  begun_ = true;
  return Step::event;
}

CompactReader::Step CompactReader::next(std::string_view bytes, RecordedEvent& recorded) {
  used_ = 0;
  if (!begun_) {
    const Step step = take_header(bytes);
    if (step != Step::event) return step;
    bytes.remove_prefix(sizeof(FileHeader));
  }
  for (;;) {
    if (ended_) {
      if (!bytes.empty()) return damaged("bytes follow the record that ends it");
      return Step::end;
    }
    needed_ = sizeof(RecordHead);
    if (bytes.size() < needed_) return Step::more;
    const auto head = get<RecordHead>(bytes);
    const bool known = head.kind >= static_cast<std::uint32_t>(RecordKind::name) &&
                       head.kind <= static_cast<std::uint32_t>(RecordKind::end);
    if (!known || head.body_bytes > most_body_bytes) return damaged("no record begins there");
    needed_ += head.body_bytes;
    if (bytes.size() < needed_) return Step::more;
    const std::string_view body = bytes.substr(sizeof(RecordHead), head.body_bytes);
    if (head.checksum != checksum_of(head.kind, body)) return damaged("the checksum of the record there is wrong");
    Step step = Step::more;
    if (head.kind == static_cast<std::uint32_t>(RecordKind::name)) {
      names_.emplace_back(body);
    } else if (head.kind == static_cast<std::uint32_t>(RecordKind::event)) {
      step = take_event(body, recorded);
    } else {
      step = take_end(body);
    }
    if (step == Step::damaged) return step;
    bytes.remove_prefix(needed_);
    used_ += needed_;
    offset_ += needed_;
    if (step != Step::more) return step;
  }
}

CompactReader::Step CompactReader::take_event(std::string_view body, RecordedEvent& recorded) {
  if (body.size() < sizeof(EventFields)) return damaged("the event there is too short");
  const auto fields = get<EventFields>(body);
  body.remove_prefix(sizeof fields);
  if (fields.topic >= names_.size() || fields.publisher >= names_.size() ||
      std::uint64_t{fields.key_bytes} + fields.headers_bytes + fields.payload_bytes != body.size()) {
    return damaged("the event there is not one of this format");
  }
  recorded.event.topic = names_[fields.topic];
  recorded.publisher = names_[fields.publisher];
  recorded.sequence = fields.sequence;
  recorded.delivery = fields.delivery;
  recorded.attempt = fields.attempt;
  recorded.published_unix_ns = fields.published_unix_ns;
  recorded.event.key = body.substr(0, fields.key_bytes);
  const std::string_view headers = body.substr(fields.key_bytes, fields.headers_bytes);
  recorded.event.headers = client::decode_headers(std::as_bytes(std::span(headers.data(), headers.size())));
  recorded.event.payload = body.substr(std::size_t{fields.key_bytes} + fields.headers_bytes);
  ++events_;
  return Step::event;
}

CompactReader::Step CompactReader::take_end(std::string_view body) {
  if (body.size() != sizeof(EndFields)) return damaged("the end there is not one of this format");
  const auto fields = get<EndFields>(body);
  if (fields.events != events_) {
    return damaged("its end says that it has " + number_text(fields.events) + " events, and " + number_text(events_) +
                   " came before it");
  }
  missed_ = fields.missed;
  ended_ = true;
  return Step::end;
}

}  // namespace ackring::tools
