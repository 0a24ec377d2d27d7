// JSON as a serializer, for types that nlohmann::json can convert (to_json and from_json, or its macros). Apart from
// <ackring/ackring.hpp>, so that who has no use for it need not have nlohmann-json.
#pragma once

#include <string>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "ackring/serializer.hpp"

namespace ackring {

/// Text as encode() hands it out: owns what its bytes are.
struct JsonText {
  std::string text;
  operator Bytes() const noexcept { return as_bytes(text); }  // NOLINT(google-explicit-constructor)
};

template <class T>
struct JsonSerializer {
  static JsonText encode(const T& value) { return {nlohmann::json(value).dump()}; }
  static T decode(Bytes bytes) {
    const auto* begin = reinterpret_cast<const char*>(bytes.data());
    return nlohmann::json::parse(begin, begin + bytes.size()).template get<T>();
  }
};

namespace detail {
template <class T>
requires(!std::is_trivially_copyable_v<T> &&
         requires(const nlohmann::json& json) { json.get<T>(); }) struct ChooseSerializer<T> {
  using type = JsonSerializer<T>;
};
}  // namespace detail

}  // namespace ackring
