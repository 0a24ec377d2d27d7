#include "tools/shmtool/delivery_text.hpp"

#include <fmt/format.h>

#include "lib/client/headers_codec.hpp"
#include "tools/common/json_text.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

std::string ndjson_line(const Delivery& delivery) {
  // Events carry monotonic time; the distance to the wall clock is that of the moment of printing.
  const std::uint64_t published = delivery.published_ns() + (realtime_ns() - monotonic_ns());
  return fmt::format(
      "{{\"topic\":{},\"key\":{},\"headers\":{},\"publisher\":{},\"sequence\":{},\"delivery\":{},\"attempt\":{},"
      "\"published_ns\":{},{}}}\n",
      json_string_of_bytes(delivery.topic()), json_string_of_bytes(delivery.key()),
      client::headers_json(delivery.headers()), json_string_of_bytes(delivery.publisher()), delivery.sequence(),
      delivery.delivery(), delivery.attempt(), published, data_member(delivery.text()));
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
