// Names of buses and of what is in them, and where buses are.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "ackring/error.hpp"
#include "ackring/limits.hpp"
#include "lib/shm/directory.hpp"

namespace ackring::shm {

std::string default_directory() {
  // secure_getenv: a program with the rights of another user does not let its caller choose.
  const char* chosen = ::secure_getenv("ACKRING_DIR");
  if (chosen != nullptr && *chosen != '\0') return chosen;
  return fmt::format("/dev/shm/ackring-{}", ::geteuid());
}

void check_name(std::string_view what, std::string_view name) {
  std::string why;
  const bool allowed = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '-';
  });
  if (name.empty()) {
    why = "is empty";
  } else if (name.size() > limits::name_bytes) {
    why = fmt::format("has {} bytes, the limit is {}", name.size(), limits::name_bytes);
  } else if (!allowed) {
    why = "has characters other than [A-Za-z0-9_.-]";
  } else if (name.front() == '.') {
    why = "begins with '.'";
  } else {
    return;
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("{} name \"{}\"", what, name), std::move(why),
              fmt::format("use 1 to {} of [A-Za-z0-9_.-], not beginning with '.'", limits::name_bytes));
}

}  // namespace ackring::shm
