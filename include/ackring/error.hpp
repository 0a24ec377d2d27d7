// Errors of setup calls. The hot path does not throw; it returns an Outcome (outcome.hpp).
#pragma once

#include <cerrno>
#include <stdexcept>
#include <string>

namespace ackring {

/// What kind of refusal an Error reports.
enum class ErrorCode {
  invalid_argument,  ///< a name, pattern, size or option is not allowed; the message names the limit
  no_exchange,       ///< nothing serves the bus, and this call does not start an exchange
  exchange_exists,   ///< another exchange holds the bus
  busy,              ///< the name is held by a live client
  not_found,         ///< no such bus, subscription or publisher
  option_mismatch,   ///< the subscription exists with other options
  not_empty,         ///< the subscription holds events, and nobody has said what becomes of them
  layout_mismatch,   ///< the other side uses another layout version
  damaged,           ///< bytes in shared memory are not what their writer could have written
  permission,        ///< owner, mode or credentials do not allow it
  no_space,          ///< the file system, a table or a descriptor limit is full
  closed,            ///< the handle was closed, or belongs to the parent of a fork
  protocol,          ///< the control connection got a message it does not understand
  timeout,           ///< the exchange did not answer in time
  system,            ///< another system call failed; see system_errno()
};

/// Name of a code as it stands on the control socket and in messages, such as "no_exchange".
const char* to_string(ErrorCode code) noexcept;

/// A setup call was refused. `what()` is one line: what: why: what to do.
class Error : public std::runtime_error {
 public:
  /// `object`: the path, name or option the error is about; `why`: the cause; `advice`: what to do.
  Error(ErrorCode code, std::string object, std::string why, std::string advice = {}, int system_errno = 0);

  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  /// errno of the system call that failed, or 0.
  [[nodiscard]] int system_errno() const noexcept { return system_errno_; }
  [[nodiscard]] const std::string& object() const noexcept { return object_; }
  [[nodiscard]] const std::string& why() const noexcept { return why_; }
  [[nodiscard]] const std::string& advice() const noexcept { return advice_; }

 private:
  ErrorCode code_;
  int system_errno_;
  std::string object_;
  std::string why_;
  std::string advice_;
};

}  // namespace ackring
