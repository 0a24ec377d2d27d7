#include "lib/exchange/garbage.hpp"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "ackring/error.hpp"
#include "lib/exchange/bus_file.hpp"
#include "lib/exchange/doctor.hpp"
#include "lib/exchange/host.hpp"
#include "lib/shm/lock.hpp"

namespace ackring::exchange {

namespace {

const char* const lock_file = "exchange.lock";
const char* const half_removed_prefix = ".removed-";

Error is_served_error(const shm::Directory& directory) {
  return Error(ErrorCode::exchange_exists, directory.path(),
               "an exchange serves it, which removes what is dead by itself", "stop it first, or leave it to it");
}

bool is_held(const shm::Directory& directory, const std::string& name) {
  try {
    return directory.exists(name) && shm::is_locked(directory.open(name, false).get());
  } catch (const Error&) {
    return true;  // who can't tell takes it for alive
  }
}

// What the files say of who holds something, and what is in the bus.
struct Contents {
  std::set<std::uint64_t> clients;  // that publishers and rings name
  std::string held;                 // the first thing that makes the bus one that is not empty
};

void look_at_publishers(const shm::Directory& directory, Contents& contents) {
  if (!directory.exists("exchange")) return;
  const BusFile file(directory, "exchange");
  for (std::size_t slot = 0; slot < shm::max_publishers; ++slot) {
    std::uint64_t client = 0;
    const std::uint64_t at = offsetof(shm::ExchangeSegment, publishers) + slot * sizeof(shm::PublisherEntry);
    if (file.read_as(at + offsetof(shm::PublisherEntry, client), client) && client != 0)
      contents.clients.insert(client);
  }
}

// Does it hold nothing that was committed and not routed?
// The shards of the exchange that has left these files.
std::uint32_t mask_of(const shm::Directory& directory) {
  shm::Word32 shards;
  const std::size_t at = offsetof(shm::ExchangeSegment, shards);
  const bool there = directory.exists("exchange") && BusFile(directory, "exchange").read_as(at, shards);
  return (there ? value(shards) : 0) | 1;
}

bool is_empty_ring(const shm::Directory& directory, const std::string& name, const BusFileName& parsed) {
  const BusFile ring(directory, name);
  shm::IngressRing page;
  if (!ring.read_as(0, page)) return false;
  const std::uint64_t tail = value(page.tail);
  if (tail == page.start_position) return true;
  const std::string cursor_name = "pub." + std::to_string(parsed.owner) + ".cursor." + std::to_string(parsed.number);
  shm::IngressCursor cursor;
  if (!directory.exists(cursor_name) || !BusFile(directory, cursor_name).read_as(0, cursor)) return false;
  const std::uint32_t shards = mask_of(directory);
  bool read = true;
  for (std::size_t i = 0; i < shm::max_shards; ++i) {
    const shm::ShardCursor& shard = cursor.shards[i];
    if ((shards >> i & 1) != 0) read = read && shard.blocks[value(shard.version) & 1].consumed == tail;
  }
  return read;
}

Contents look_at_contents(const shm::Directory& directory) {
  Contents contents;
  look_at_publishers(directory, contents);
  const auto holds = [&contents](const std::string& what) {
    if (contents.held.empty()) contents.held = what;
  };
  std::set<std::uint64_t> lasting;
  for (const std::string& name : directory.list("")) {
    const BusFileName parsed = parse_file_name(name);
    if (parsed.kind == FileKind::ring) {
      std::uint64_t client = 0;
      if (BusFile(directory, name).read_as(offsetof(shm::MemberRing, client), client) && client != 0) {
        contents.clients.insert(client);
      }
    } else if (parsed.kind == FileKind::definition) {
      const nlohmann::json definition = nlohmann::json::parse(directory.read_file(name));
      if (!definition.at("ephemeral").get<bool>()) holds("subscription " + definition.at("name").get<std::string>());
    } else if (parsed.kind == FileKind::client_lock && is_held(directory, name)) {
      holds("a client that is alive (" + name + ")");
    } else if (parsed.kind == FileKind::damaged || parsed.kind == FileKind::unknown) {
      holds(name);
    } else if (parsed.kind == FileKind::publisher_ring && !is_empty_ring(directory, name, parsed)) {
      holds("events that were not routed (" + name + ")");
    }
  }
  return contents;
}

// What the doctor calls the remains of a crash, in as far as nothing can be in them.
bool is_dead(const shm::Directory& directory, const Finding& finding, const Contents& contents, std::string& why_not) {
  static const std::set<std::string> remains{"temporary", "dead_client", "ended", "released", "retired"};
  if (!remains.contains(finding.check)) return false;
  const BusFileName parsed = parse_file_name(finding.file);
  if (finding.check == "dead_client" && contents.clients.contains(parsed.owner)) {
    why_not = "its client is dead and still has publishers or members: the next exchange sees to them";
  } else if (parsed.kind == FileKind::publisher_ring && !is_empty_ring(directory, finding.file, parsed)) {
    why_not = "its incarnation has ended, but there are events in it";
  }
  return why_not.empty();
}

void remove_all_files(const std::string& path) {
  shm::FileDirectory directory(path, false);
  // The lock goes last: until then whoever has opened the directory sees that it is held.
  for (const std::string& name : directory.list("")) {
    if (name != lock_file && parse_file_name(name).kind != FileKind::unknown) directory.remove(name);
  }
  directory.remove(lock_file);
}

}  // namespace

BusLock::BusLock(shm::Directory& directory) {
  fd_ = directory.open_or_create(lock_file);
  if (!shm::try_lock(fd_.get())) throw is_served_error(directory);
  const std::string pid = std::to_string(::getpid()) + "\n";  // for who is refused meanwhile
  if (::ftruncate(fd_.get(), 0) == 0) (void)!::pwrite(fd_.get(), pid.data(), pid.size(), 0);
}

Garbage find_garbage(const shm::Directory& directory, bool locked) {
  if (!locked && is_served(directory)) throw is_served_error(directory);
  DoctorOptions options;
  options.locked_by_caller = locked;
  const DoctorReport report = examine(directory, options);
  if (!report.sound()) {
    throw Error(ErrorCode::damaged, directory.path(),
                "the doctor finds violations in it (" + std::to_string(report.count(Gravity::violation)) + ")",
                "nothing was removed; see shmtool doctor");
  }
  const Contents contents = look_at_contents(directory);
  Garbage garbage;
  for (const Finding& finding : report.findings) {
    if (finding.file.empty() || finding.gravity == Gravity::violation) continue;
    std::string why_not;
    if (is_dead(directory, finding, contents, why_not)) {
      garbage.files.push_back({finding.file, finding.text, true});
    } else if (!why_not.empty() || finding.check == "damaged") {
      garbage.files.push_back({finding.file, why_not.empty() ? finding.text : why_not, false});
    }
  }
  garbage.why_not_empty = contents.held;
  // Its last transaction may be half done: without a subscription there is nothing that it could have moved.
  garbage.bus_is_empty = contents.held.empty();
  return garbage;
}

void remove_garbage(shm::Directory& directory, const Garbage& garbage) noexcept {
  for (const GarbageFile& file : garbage.files) {
    if (file.remove) directory.remove(file.file);
  }
}

bool remove_bus(const std::string& parent, const std::string& name) {
  const std::string place = parent + "/" + name;
  const std::string aside = parent + "/" + half_removed_prefix + name + "-" + std::to_string(::getpid());
  if (::rename(place.c_str(), aside.c_str()) != 0) return false;
  remove_all_files(aside);
  if (::rmdir(aside.c_str()) == 0) return true;
  (void)::rename(aside.c_str(), place.c_str());  // an exchange that had opened it has begun in it
  return false;
}

bool is_half_removed(const std::string& name) noexcept { return name.starts_with(half_removed_prefix); }

bool finish_removal(const std::string& parent, const std::string& name) {
  const std::string path = parent + "/" + name;
  {
    shm::FileDirectory directory(path, false);
    if (is_served(directory)) return false;
  }
  remove_all_files(path);
  return ::rmdir(path.c_str()) == 0;
}

}  // namespace ackring::exchange
