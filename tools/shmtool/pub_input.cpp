#include "tools/shmtool/pub_input.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include "tools/common/json_text.hpp"
#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

Headers headers_of(std::string_view value) {
  if (value.empty() || value[0] != '{')
    throw std::invalid_argument("'headers' is not an object: write {\"name\": \"value\"}");
  Headers headers;
  for_each_member(value, [&headers](const std::string& name, std::string_view text) {
    if (text.empty() || text[0] != '"')
      throw std::invalid_argument("header '" + name + "' is not a string: quote its value");
    headers.emplace_back(name, nlohmann::json::parse(text).get<std::string>());
  });
  return headers;
}

}  // namespace

std::string string_member(std::string_view value, const char* member) {
  if (value.empty() || value[0] != '"')
    throw std::invalid_argument(std::string("'") + member + "' is not a string: quote it");
  return nlohmann::json::parse(value).get<std::string>();
}

std::string base64_member(std::string_view value, const char* member) {
  auto bytes = base64_decode(string_member(value, member));
  if (!bytes) {
    throw std::invalid_argument(std::string("'") + member + "' is not base64: check its alphabet and padding");
  }
  return std::move(*bytes);
}

void parse_event(std::string_view line, const Event& defaults, Event& event, const OtherMember& other) {
  if (!is_json(line)) {
    // Valid lines take the fast path above; only for the message it is parsed again, to learn where it goes wrong.
    std::string why = "not valid JSON";
    try {
      [[maybe_unused]] const auto parsed = nlohmann::json::parse(line);
    } catch (const nlohmann::json::parse_error& error) {
      why += " (at byte " + std::to_string(error.byte) + ")";
    } catch (const nlohmann::json::out_of_range&) {
      why = "a number in it is larger than a double can be";
    }
    throw std::invalid_argument(why + ": one object per line is expected");
  }
  const std::size_t start = line.find_first_not_of(" \t\r");
  if (line[start] != '{') throw std::invalid_argument("not an object: write {\"topic\": …, \"data\": …}");
  event = defaults;
  bool has_topic = false;
  bool has_data = false;
  for_each_member(line, [&](const std::string& name, std::string_view value) {
    if (name == "topic") {
      event.topic = string_member(value, "topic");
      has_topic = true;
    } else if (name == "data") {
      // A string's content; anything else byte for byte as it stands in the line.
      event.payload = value[0] == '"' ? nlohmann::json::parse(value).get<std::string>() : std::string(value);
      has_data = true;
    } else if (name == "data_base64") {  // what `shmtool sub` prints of a payload that is no text
      event.payload = base64_member(value, "data_base64");
      has_data = true;
    } else if (name == "key" && value != "null") {
      event.key = string_member(value, "key");
    } else if (name == "headers" && value != "null") {
      event.headers = headers_of(value);
    } else if (other) {
      other(name, value);
    }
  });
  if (!has_topic) throw std::invalid_argument("'topic' is missing: each object needs topic and data");
  if (!has_data)
    throw std::invalid_argument("'data' is missing: each object needs topic and data (\"\" is an empty event)");
}

ByteInput::ByteInput(std::string path) : path_(std::move(path)) {
  if (path_ == "-") {
    fd_ = STDIN_FILENO;
    return;
  }
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) throw Failure(status_usage, path_ + ": can't open it: " + std::strerror(errno) + ": check the path");
}

ByteInput::~ByteInput() {
  if (fd_ > STDIN_FILENO) ::close(fd_);
}

bool ByteInput::can_rewind() const noexcept { return fd_ != STDIN_FILENO && ::lseek(fd_, 0, SEEK_CUR) >= 0; }

void ByteInput::rewind() noexcept {
  ::lseek(fd_, 0, SEEK_SET);
  ended_ = false;
}

bool ByteInput::more() {
  constexpr std::size_t chunk_bytes = 256u << 10;
  buffer_.erase(0, at_);
  at_ = 0;
  while (!ended_ && !stop_requested()) {
    // A signal must end a wait for stdin even if it arrives just before the read.
    pollfd readable{fd_, POLLIN, 0};
    if (::poll(&readable, 1, 100) <= 0) continue;
    const std::size_t old_bytes = buffer_.size();
    // A long line or record is read in fewer and fewer steps.
    buffer_.resize(old_bytes + std::max(chunk_bytes, old_bytes));
    const ssize_t bytes = ::read(fd_, buffer_.data() + old_bytes, buffer_.size() - old_bytes);
    const int error = errno;
    buffer_.resize(old_bytes + (bytes > 0 ? static_cast<std::size_t>(bytes) : 0));
    if (bytes > 0) return true;
    if (bytes == 0) ended_ = true;
    if (bytes < 0 && error != EINTR && error != EAGAIN) {
      throw Failure(status_refused, path_ + ": can't read it: " + std::strerror(error) + ": check the file");
    }
  }
  return false;
}

bool take_line(ByteInput& input, std::string& line, bool& whole) {
  for (std::size_t searched = 0;;) {
    const std::string_view bytes = input.bytes();
    const std::size_t end = bytes.find('\n', searched);
    whole = end != std::string_view::npos;
    if (whole || (input.ended() && !bytes.empty())) {
      line.assign(bytes.substr(0, end));
      input.consume(whole ? end + 1 : bytes.size());
      return true;
    }
    searched = bytes.size();
    if (!input.more() && !input.ended()) return false;  // a signal
    if (input.ended() && input.bytes().empty()) return false;
  }
}

LineReader::LineReader(std::string path, std::uint64_t passes) : input_(std::move(path)), passes_left_(passes) {
  remember_ = passes > 1 && !input_.can_rewind();  // a pipe by name can be read only once, too
}

std::string LineReader::where() const { return input_.name() + ":" + std::to_string(line_number_); }

bool LineReader::next(std::string& line) {
  while (!stop_requested() && passes_left_ > 0) {
    if (bool whole = false; !replaying_ && take_line(input_, line, whole)) {
      ++line_number_;
      if (remember_) remembered_.push_back(line);
      return true;
    }
    if (replaying_ && line_number_ < remembered_.size()) {
      line = remembered_[line_number_++];
      return true;
    }
    if (stop_requested() || line_number_ == 0) return false;  // an empty input stays empty, however often it is read
    --passes_left_;
    line_number_ = 0;
    replaying_ = remember_;
    if (!remember_) input_.rewind();
  }
  return false;
}

}  // namespace ackring::tools
