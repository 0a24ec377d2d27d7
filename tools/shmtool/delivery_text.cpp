#include "tools/shmtool/delivery_text.hpp"

#include <fmt/format.h>

#include "tools/common/json_text.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

// Keys and headers may hold any bytes; what is no UTF-8 can't stand in JSON, so its bytes are shown as Latin-1.
std::string string_member(std::string_view text) {
  if (is_utf8(text)) return json_string(text);
  std::string decoded;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      decoded += c;
    } else {
      decoded += static_cast<char>(0xc0 | byte >> 6);
      decoded += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return json_string(decoded);
}

std::string headers_object(const Headers& headers) {
  std::string text = "{";
  for (const auto& [name, value] : headers) {
    if (text.size() > 1) text += ",";
    text += string_member(name) + ":" + string_member(value);
  }
  return text + "}";
}

std::string ndjson_line(const Delivery& delivery) {
  // Events carry monotonic time; the distance to the wall clock is that of the moment of printing.
  const std::uint64_t published = delivery.published_ns() + (realtime_ns() - monotonic_ns());
  return fmt::format(
      "{{\"topic\":{},\"key\":{},\"headers\":{},\"publisher\":{},\"sequence\":{},\"delivery\":{},\"attempt\":{},"
      "\"published_ns\":{},{}}}\n",
      string_member(delivery.topic()), string_member(delivery.key()), headers_object(delivery.headers()),
      string_member(delivery.publisher()), delivery.sequence(), delivery.delivery(), delivery.attempt(), published,
      data_member(delivery.text()));
}

}  // namespace

std::string delivery_text(const Delivery& delivery, DeliveryFormat format) {
  switch (format) {
    case DeliveryFormat::raw:
      return std::string(delivery.text());
    case DeliveryFormat::topic:
      return std::string(delivery.topic()) + "\n";
    case DeliveryFormat::ndjson:
      break;
  }
  return ndjson_line(delivery);
}

}  // namespace ackring::tools
