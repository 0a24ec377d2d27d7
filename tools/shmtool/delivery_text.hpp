// How `shmtool sub` prints a delivery.
#pragma once

#include <string>

#include "ackring/delivery.hpp"

namespace ackring::tools {

enum class DeliveryFormat {
  ndjson,  ///< one object per line
  raw,     ///< the payload as it is, nothing between two of them
  topic,   ///< the topic, one per line
};

[[nodiscard]] std::string delivery_text(const Delivery& delivery, DeliveryFormat format);

}  // namespace ackring::tools
