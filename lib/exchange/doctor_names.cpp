// Doctor: every file of the directory is one that the format knows, and that something names.
#include <map>

#include "ackring/error.hpp"
#include "lib/exchange/doctor_look.hpp"
#include "lib/exchange/exchange.hpp"
#include "lib/shm/lock.hpp"

namespace ackring::exchange {

namespace {

bool is_held(const Look& look, const std::string& name) {
  try {
    return shm::is_locked(look.directory.open(name, false).get());
  } catch (const Error&) {
    return false;
  }
}

void check_client_lock(Look& look, const std::string& name, std::uint64_t client) {
  look.clients_used.emplace(client, name);
  if (is_held(look, name)) return;
  look.leftover(name, "dead_client", "the lock file of a client that is dead");
}

void check_publisher_file(Look& look, const std::string& name, const BusFileName& parsed) {
  const shm::PublisherEntry& entry = look.page->publishers[parsed.owner];
  look.uses_file_number(parsed.number, name);
  if (parsed.number == value(entry.incarnation)) return;
  look.leftover(name, "ended",
                "a file of an incarnation of publisher " + std::to_string(parsed.owner) + " that has ended");
}

void check_ack_page(Look& look, const std::string& name, const BusFileName& parsed) {
  look.uses_file_number(parsed.number, name);
  const std::string rings = "sub." + std::to_string(parsed.owner) + ".ring.";
  for (const std::string& other : look.names_of_subscription[parsed.owner]) {
    if (!other.starts_with(rings) || other.ends_with(".tmp")) continue;
    try {
      std::uint64_t ack_page = 0;
      const BusFile ring(look.directory, other);
      if (ring.read_as(offsetof(shm::MemberRing, ack_page), ack_page) && ack_page == parsed.number) return;
    } catch (const Error&) {
      continue;  // it is gone, or said already
    }
  }
  look.leftover(name, "ended", "an ack page that no ring names");
}

}  // namespace

void check_names(Look& look) {
  const bool readable = look.page_file.valid();
  for (const std::string& name : look.names) {
    const BusFileName parsed = parse_file_name(name);
    switch (parsed.kind) {
      case FileKind::unknown:
        look.violation(name, "unknown", "a bus has no file of this name");
        break;
      case FileKind::temporary:
        look.leftover(name, "temporary", "a file that was being written");
        break;
      case FileKind::damaged:
        look.add(Gravity::warning, name, "damaged", "an exchange has set it aside as damaged");
        break;
      case FileKind::client_lock:
        check_client_lock(look, name, parsed.owner);
        break;
      case FileKind::publisher_ring:
      case FileKind::publisher_cursor:
        if (readable) check_publisher_file(look, name, parsed);
        break;
      case FileKind::ack:
        check_ack_page(look, name, parsed);
        break;
      default:
        break;
    }
  }
}

}  // namespace ackring::exchange
