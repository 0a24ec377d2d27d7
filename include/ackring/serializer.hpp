// Serializers: how values become payloads and payloads values, for typed handlers and publishers.
#pragma once

#include <concepts>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "ackring/publisher.hpp"

namespace ackring {

/// Encodes a T into something whose bytes can be seen, and decodes it again; decode() throws where the bytes are no T.
template <class S, class T>
concept Serializer = requires(const T& value, Bytes bytes) {
  {Bytes(S::encode(value))};
  { S::decode(bytes) } -> std::convertible_to<T>;
};

/// The bytes of a value as they lie in memory: for processes that were built with the same definition of T.
template <class T>
requires std::is_trivially_copyable_v<T>
struct TrivialSerializer {
  static Bytes encode(const T& value) noexcept { return std::as_bytes(std::span<const T, 1>(&value, 1)); }
  static T decode(Bytes bytes) {
    if (bytes.size() != sizeof(T)) {
      throw std::invalid_argument("it has " + std::to_string(bytes.size()) + " bytes, not " +
                                  std::to_string(sizeof(T)));
    }
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
};

/// Text as it is.
struct TextSerializer {
  static Bytes encode(std::string_view text) noexcept { return as_bytes(text); }
  static std::string decode(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
};

namespace detail {
template <class T>
struct ChooseSerializer;
template <class T>
requires std::is_trivially_copyable_v<T>
struct ChooseSerializer<T> {
  using type = TrivialSerializer<T>;
};
template <>
struct ChooseSerializer<std::string> {
  using type = TextSerializer;
};
}  // namespace detail

/// What is taken where none is named: the bytes of trivially copyable types, texts, and, with <ackring/json.hpp>, JSON for
/// types that nlohmann::json knows.
template <class T>
using DefaultSerializer = typename detail::ChooseSerializer<T>::type;

/// Publisher::publish() with a value.
template <class T, class S = DefaultSerializer<T>>
requires Serializer<S, T> Outcome publish(Publisher& publisher, std::string_view topic, const T& value,
                                          const EventAttributes& attributes = {}) {
  const auto& encoded = S::encode(value);
  return publisher.publish(topic, Bytes(encoded), attributes);
}

}  // namespace ackring
