#include "tools/shmtool/pub_input.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include "tools/common/json_text.hpp"
#include "tools/common/program.hpp"

namespace ackring::tools {
namespace {

std::string text_of(std::string_view value, const char* member) {
  if (value.empty() || value[0] != '"')
    throw std::invalid_argument(std::string("'") + member + "' is not a string: quote it");
  return nlohmann::json::parse(value).get<std::string>();
}

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

void parse_event(std::string_view line, const Event& defaults, Event& event) {
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
      event.topic = text_of(value, "topic");
      has_topic = true;
    } else if (name == "data") {
      // A string's content; anything else byte for byte as it stands in the line.
      event.payload = value[0] == '"' ? nlohmann::json::parse(value).get<std::string>() : std::string(value);
      has_data = true;
    } else if (name == "data_base64") {  // what `shmtool sub` prints of a payload that is no text
      auto bytes = base64_decode(text_of(value, "data_base64"));
      if (!bytes) throw std::invalid_argument("'data_base64' is not base64: check its alphabet and padding");
      event.payload = std::move(*bytes);
      has_data = true;
    } else if (name == "key" && value != "null") {
      event.key = text_of(value, "key");
    } else if (name == "headers" && value != "null") {
      event.headers = headers_of(value);
    }
  });
  if (!has_topic) throw std::invalid_argument("'topic' is missing: each object needs topic and data");
  if (!has_data)
    throw std::invalid_argument("'data' is missing: each object needs topic and data (\"\" is an empty event)");
}

LineReader::LineReader(std::string path, std::uint64_t passes) : path_(std::move(path)), passes_left_(passes) {
  if (path_ == "-") {
    fd_ = STDIN_FILENO;
    remember_ = passes > 1;
    return;
  }
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) throw Failure(status_usage, path_ + ": can't open it: " + std::strerror(errno) + ": check the path");
  if (passes > 1 && ::lseek(fd_, 0, SEEK_CUR) < 0) remember_ = true;  // a pipe by name can be read only once
}

LineReader::~LineReader() {
  if (fd_ > STDIN_FILENO) ::close(fd_);
}

std::string LineReader::where() const { return (path_ == "-" ? "stdin" : path_) + ":" + std::to_string(line_number_); }

bool LineReader::next(std::string& line) {
  while (!stop_requested() && passes_left_ > 0) {
    if (!replaying_ && next_of_file(line)) {
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
    if (!remember_) {
      ::lseek(fd_, 0, SEEK_SET);
      ended_ = false;
    }
  }
  return false;
}

bool LineReader::next_of_file(std::string& line) {
  std::size_t searched = at_;
  while (true) {
    const std::size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos || (ended_ && at_ < buffer_.size())) {
      const std::size_t length = (end == std::string::npos ? buffer_.size() : end) - at_;
      line.assign(buffer_, at_, length);
      at_ = end == std::string::npos ? buffer_.size() : end + 1;
      ++line_number_;
      return true;
    }
    if (ended_ || stop_requested()) return false;
    searched = buffer_.size() - at_;
    fill();
  }
}

// Moves what is left to the front and reads more behind it.
void LineReader::fill() {
  constexpr std::size_t chunk_bytes = 256u << 10;
  buffer_.erase(0, at_);
  at_ = 0;
  const std::size_t old_bytes = buffer_.size();
  // A signal must end a wait for stdin even if it arrives just before the read.
  pollfd readable{fd_, POLLIN, 0};
  if (::poll(&readable, 1, 100) <= 0) return;
  buffer_.resize(old_bytes + chunk_bytes);
  const ssize_t bytes = ::read(fd_, buffer_.data() + old_bytes, chunk_bytes);
  const int error = errno;
  buffer_.resize(old_bytes + (bytes > 0 ? static_cast<std::size_t>(bytes) : 0));
  if (bytes == 0) ended_ = true;
  if (bytes < 0 && error != EINTR && error != EAGAIN) {
    throw Failure(status_refused, path_ + ": can't read it: " + std::strerror(error) + ": check the file");
  }
}

}  // namespace ackring::tools
