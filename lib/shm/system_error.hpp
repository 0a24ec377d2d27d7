// From errno to ackring::Error, with an advice that fits.
#pragma once

#include <string>
#include <string_view>

#include "ackring/error.hpp"

namespace ackring::shm {

/// The code that an errno of a file, mapping or descriptor call stands for.
ErrorCode code_of_errno(int error) noexcept;

/// "action: description of the errno", code and advice chosen by the errno. `action`: what failed, such as
/// "can't open it".
Error system_error(std::string object, std::string_view action, int error);

}  // namespace ackring::shm
