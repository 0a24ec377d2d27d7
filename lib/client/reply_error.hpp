// Replies of the exchange: the error object as an ackring::Error, and fields that must be there.
//
// Thread rules: plain functions.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "ackring/error.hpp"

namespace ackring::client {

using Json = nlohmann::json;

/// The Error of {"ok":false,"code":…,"object":…,"why":…,"advice":…,"errno":…}; what is missing or of a wrong type is
/// replaced (an unknown code becomes ErrorCode::protocol).
[[nodiscard]] Error error_of_reply(const Json& reply);

/// The other way round, without "id".
[[nodiscard]] Json reply_of_error(const Error& error);

/// A field of a reply. Throws Error (protocol) if it is missing or of another type.
template <class T>
[[nodiscard]] T reply_field(const Json& reply, const char* name) {
  try {
    return reply.at(name).get<T>();
  } catch (const Json::exception&) {
    throw Error(ErrorCode::protocol, "reply of the exchange", "field '" + std::string(name) + "' is missing or wrong",
                "use the same version on both sides");
  }
}

}  // namespace ackring::client
