// The dead letters of a bus as its files hold them: for tools, where the exchange is dead or the directory is a copy.
//
// Thread rules: plain functions; the files are mapped read-only.
#pragma once

#include <functional>
#include <string>

#include "ackring/error.hpp"
#include "lib/ring/record.hpp"
#include "lib/shm/directory.hpp"

namespace ackring::exchange {

/// Calls `each` with every dead letter of subscription `name`, oldest first, until it answers false. Throws Error
/// (not_found: there is no such subscription; damaged).
void walk_dead_files(const shm::Directory& directory, const std::string& name,
                     const std::function<bool(const ring::EventParts&)>& each);

/// "There is no subscription of this name."
[[nodiscard]] Error no_subscription(const std::string& name);

}  // namespace ackring::exchange
