// A line of `shmtool pub --ndjson` against nlohmann's parser: what is accepted, what becomes of each member, and that the
// payload is exactly the bytes of `data`. The input is the line.
#include <stdexcept>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/fuzz/fuzz.hpp"
#include "tools/common/json_text.hpp"
#include "tools/shmtool/pub_input.hpp"

namespace {

using namespace ackring;
using nlohmann::json;
using Members = std::vector<std::pair<std::string, json>>;

// The members of the object, in their order, repeated ones too. False: the line is not an object in JSON.
bool members_of(std::string_view line, Members& members) {
  if (line.find('\0') != std::string_view::npos || line.starts_with("\xef\xbb\xbf")) return false;
  std::string key;
  const json parsed = json::parse(
      line,
      [&](int depth, json::parse_event_t event, json& value) {
        if (depth != 1) return true;
        if (event == json::parse_event_t::key) key = value.get<std::string>();
        if (event == json::parse_event_t::value || event == json::parse_event_t::object_end ||
            event == json::parse_event_t::array_end) {
          members.emplace_back(key, value);
        }
        return true;
      },
      false);
  return parsed.is_object();
}

bool is_base64(const std::string& text) {
  if (text.size() % 4 != 0) return false;
  const std::size_t digits = text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
  const std::size_t used = digits == std::string::npos ? text.size() : digits;
  return text.size() - used <= 2 && text.find_first_not_of('=', used) == std::string::npos;
}

struct Expected {
  bool valid = false;
  json topic, data, base64, key, headers;  // the last ones; null: there is none
  bool base64_counts = false;              // rather than data
};

Expected expected_of(const Members& members) {
  Expected result;
  bool has_topic = false;
  bool has_data = false;
  result.valid = true;
  for (const auto& [name, value] : members) {
    if (name == "topic") {
      result.valid = result.valid && value.is_string();
      result.topic = value;
      has_topic = true;
    } else if (name == "data") {
      result.data = value;
      result.base64_counts = false;
      has_data = true;
    } else if (name == "data_base64") {
      result.valid = result.valid && value.is_string() && is_base64(value.get<std::string>());
      result.base64 = value;
      result.base64_counts = has_data = true;
    } else if (name == "key" && !value.is_null()) {
      result.valid = result.valid && value.is_string();
      result.key = value;
    } else if (name == "headers" && !value.is_null()) {
      result.valid = result.valid && value.is_object() &&
                     std::all_of(value.begin(), value.end(), [](const json& one) { return one.is_string(); });
      result.headers = value;
    }
  }
  result.valid = result.valid && has_topic && has_data;
  return result;
}

// Is `payload` what stands in the line for the last `data`? With null in its place, that member is null and no other one
// has changed.
bool stands_there(const std::string& line, const std::string& payload, const Members& members) {
  const auto last = std::find_if(members.rbegin(), members.rend(), [](const auto& one) { return one.first == "data"; });
  Members wanted = members;
  wanted[static_cast<std::size_t>(members.rend() - last) - 1].second = nullptr;
  for (std::size_t at = line.find(payload); at != std::string::npos; at = line.find(payload, at + 1)) {
    std::string changed = line;
    changed.replace(at, payload.size(), "null");
    Members found;
    if (members_of(changed, found) && found == wanted) return true;
  }
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string line(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 2048));
  line.resize(std::min(line.find('\n'), line.size()));
  CAPTURE(line);
  Members members;
  const bool is_object = members_of(line, members);
  const Expected expected = is_object ? expected_of(members) : Expected{};

  const tools::Event defaults{"default.topic", "default payload", "default key", {{"default", "header"}}};
  tools::Event event;
  bool accepted = true;
  try {
    tools::parse_event(line, defaults, event);
  } catch (const std::invalid_argument& error) {
    accepted = false;
    CHECK(std::string(error.what()).find(": ") != std::string::npos);  // what: what to do
  }
  // nlohmann's object keeps one of several headers of a name: such a line may be refused for one that it lost.
  CHECK((accepted == expected.valid || (!accepted && expected.headers.is_object())));
  if (!accepted) return 0;

  CHECK(event.topic == expected.topic.get<std::string>());
  CHECK(event.key == (expected.key.is_null() ? defaults.key : expected.key.get<std::string>()));
  if (expected.headers.is_null()) {
    CHECK(event.headers == defaults.headers);
  } else {
    json last = json::object();
    for (const auto& [name, value] : event.headers) last[name] = value;
    CHECK(last == expected.headers);
  }
  if (expected.base64_counts) {
    const std::string text = expected.base64.get<std::string>();
    const std::string again = tools::base64_encode(event.payload);
    REQUIRE(again.size() == text.size());
    // The last digit may have bits that no byte has.
    const std::size_t exact = text.size() - (text.ends_with("==") ? 3 : text.ends_with('=') ? 2 : 0);
    CHECK(again.compare(0, exact, text, 0, exact) == 0);
  } else if (expected.data.is_string()) {
    CHECK(event.payload == expected.data.get<std::string>());
  } else {
    CHECK(stands_there(line, event.payload, members));
  }
  return 0;
}
