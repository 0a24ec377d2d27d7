#include "ackring/error.hpp"

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "ackring/outcome.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring {
namespace {

// A name or path that came from outside may hold line breaks; the message stays one line all the same.
std::string one_line(const std::string& object, const std::string& why, const std::string& advice) {
  std::string line = object;
  if (!why.empty()) line += ": " + why;
  if (!advice.empty()) line += ": " + advice;
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return line;
}

}  // namespace

const char* to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid_argument";
    case ErrorCode::no_exchange:
      return "no_exchange";
    case ErrorCode::exchange_exists:
      return "exchange_exists";
    case ErrorCode::busy:
      return "busy";
    case ErrorCode::not_found:
      return "not_found";
    case ErrorCode::option_mismatch:
      return "option_mismatch";
    case ErrorCode::not_empty:
      return "not_empty";
    case ErrorCode::layout_mismatch:
      return "layout_mismatch";
    case ErrorCode::damaged:
      return "damaged";
    case ErrorCode::permission:
      return "permission";
    case ErrorCode::no_space:
      return "no_space";
    case ErrorCode::closed:
      return "closed";
    case ErrorCode::protocol:
      return "protocol";
    case ErrorCode::timeout:
      return "timeout";
    case ErrorCode::system:
      return "system";
  }
  return "unknown";
}

const char* to_string(Outcome outcome) noexcept {
  switch (outcome) {
    case Outcome::ok:
      return "ok";
    case Outcome::back_pressured:
      return "back_pressured";
    case Outcome::too_large:
      return "too_large";
    case Outcome::invalid_topic:
      return "invalid_topic";
    case Outcome::too_many_topics:
      return "too_many_topics";
    case Outcome::denied:
      return "denied";
    case Outcome::stale:
      return "stale";
    case Outcome::timed_out:
      return "timed_out";
    case Outcome::closed:
      return "closed";
  }
  return "unknown";
}

Error::Error(ErrorCode code, std::string object, std::string why, std::string advice, int system_errno)
    : std::runtime_error(one_line(object, why, advice)),
      code_(code),
      system_errno_(system_errno),
      object_(std::move(object)),
      why_(std::move(why)),
      advice_(std::move(advice)) {}

namespace shm {

ErrorCode code_of_errno(int error) noexcept {
  switch (error) {
    case ENOENT:
      return ErrorCode::not_found;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorCode::permission;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return ErrorCode::no_space;
    default:
      return ErrorCode::system;
  }
}

Error system_error(std::string object, std::string_view action, int error) {
  std::string advice;
  switch (error) {
    case ENOENT:
      advice = "check the name, or start what creates it";
      break;
    case EACCES:
    case EPERM:
      advice = "run as the owner, or change owner and mode";
      break;
    case ENOSPC:
    case EDQUOT:
      advice = "free space there, or use a larger file system";
      break;
    case EFBIG:
      advice = "raise the file size limit (ulimit -f)";
      break;
    case ENOMEM:
      advice = "free memory, or raise the address space limit (ulimit -v)";
      break;
    case EMFILE:
      advice = "raise the descriptor limit of this process (ulimit -n)";
      break;
    case ENFILE:
      advice = "raise the descriptor limit of the system (fs.file-max)";
      break;
    default:
      break;
  }
  std::string why(action);
  why += ": " + std::generic_category().message(error);
  return Error(code_of_errno(error), std::move(object), std::move(why), std::move(advice), error);
}

}  // namespace shm
}  // namespace ackring
