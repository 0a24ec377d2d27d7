#include "tools/shmtool/event_id.hpp"

#include <stdexcept>

#include "tools/shmtool/subscription_options.hpp"

namespace ackring::tools {

std::uint64_t parse_positive(const std::string& text) {
  const auto number = parse_number<std::uint64_t>(text);
  if (number == 0) throw std::invalid_argument("'0' is too small: write 1 or more");
  return number;
}

EventSelection parse_event_id(const std::string& text) {
  EventSelection which;
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) {
    which.delivery = parse_positive(text);
    return which;
  }
  if (slash == 0 || slash + 1 == text.size())
    throw std::invalid_argument("'" + text + "' is no event: write PUBLISHER/SEQUENCE, such as shop/17");
  which.publisher = text.substr(0, slash);
  which.sequence = parse_positive(text.substr(slash + 1));
  return which;
}

}  // namespace ackring::tools
