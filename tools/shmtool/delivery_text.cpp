#include "tools/shmtool/delivery_text.hpp"

#include "lib/client/event_text.hpp"
#include "lib/client/headers_codec.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

std::string ndjson_line(const Delivery& delivery) {
  client::EventText event;
  event.topic = delivery.topic();
  event.key = delivery.key();
  event.headers_json = client::headers_json(delivery.headers());
  event.publisher = delivery.publisher();
  event.sequence = delivery.sequence();
  event.delivery = delivery.delivery();
  event.attempt = delivery.attempt();
  // Events carry monotonic time; the distance to the wall clock is that of the moment of printing.
  event.published_unix_ns = delivery.published_ns() + (realtime_ns() - monotonic_ns());
  event.payload = delivery.text();
  return client::event_line(event);
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
