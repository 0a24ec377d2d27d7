// Threads of the library.
#pragma once

#include <functional>
#include <thread>

namespace ackring::client {

/// A thread of the library: the program's signals are for the program's threads; a fault is for the thread that makes it.
/// `name` has 15 bytes at most. Throws Error (no_space, system).
[[nodiscard]] std::thread start_thread(const char* name, std::function<void()> body);

}  // namespace ackring::client
