#include "lib/exchange/bus_file.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "lib/shm/system_error.hpp"

namespace ackring::exchange {

namespace {

constexpr std::uint64_t ahead_bytes = 64u << 10;

// Splits "12.rest" into 12 and ".rest"; false: no number stands there, or not as this code writes it.
bool take_number(std::string_view& text, std::uint64_t& number) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || (text[0] == '0' && end - text.data() > 1)) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take(std::string_view& text, std::string_view prefix) noexcept {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool take_segment_number(std::string_view text, std::uint64_t& number) noexcept {
  const bool digits = std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || text.size() < 8 || (text.size() > 8 && text[0] == '0')) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && number != 0 && number <= 0xffffffff;
}

BusFileName parse_subscription_file(std::string_view rest) noexcept {
  BusFileName name;
  if (!take_number(rest, name.owner)) return {};
  if (rest == ".json") name.kind = FileKind::definition;
  if (rest == ".state") name.kind = FileKind::state;
  for (const auto& [infix, kind] : {std::pair{".ring.", FileKind::ring}, std::pair{".ack.", FileKind::ack}}) {
    std::string_view number = rest;
    if (take(number, infix) && take_number(number, name.number) && number.empty()) name.kind = kind;
  }
  for (const auto& [infix, kind] : {std::pair{".backlog.", FileKind::backlog}, std::pair{".retry.", FileKind::retry},
                                    std::pair{".dead.", FileKind::dead}}) {
    std::string_view number = rest;
    if (take(number, infix) && take_segment_number(number, name.number)) name.kind = kind;
  }
  return name.kind == FileKind::unknown ? BusFileName{} : name;
}

}  // namespace

BusFileName parse_file_name(std::string_view name) noexcept {
  if (name == "exchange.lock") return {FileKind::lock, 0, 0};
  if (name == "exchange.sock") return {FileKind::socket, 0, 0};
  if (name == "exchange") return {FileKind::exchange, 0, 0};
  if (name == "topics") return {FileKind::topics, 0, 0};
  if (name.starts_with("damaged.")) return {FileKind::damaged, 0, 0};
  if (name.ends_with(".tmp")) {
    const BusFileName of = parse_file_name(name.substr(0, name.size() - 4));
    if (of.kind == FileKind::unknown || of.kind == FileKind::temporary) return {};
    return {FileKind::temporary, of.owner, of.number};
  }
  BusFileName result;
  if (take(name, "client.")) {
    if (take_number(name, result.owner) && name == ".lock") result.kind = FileKind::client_lock;
  } else if (take(name, "pub.")) {
    if (!take_number(name, result.owner) || result.owner >= shm::max_publishers) return {};
    const bool ring = take(name, ".ring.");
    if ((ring || take(name, ".cursor.")) && take_number(name, result.number) && name.empty()) {
      result.kind = ring ? FileKind::publisher_ring : FileKind::publisher_cursor;
    }
  } else if (take(name, "sub.")) {
    return parse_subscription_file(name);
  }
  return result.kind == FileKind::unknown ? BusFileName{} : result;
}

BusFile::BusFile(const shm::Directory& directory, const std::string& name)
    : name_(name), fd_(directory.open(name, false)) {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) throw shm::system_error(directory.path(name), "can't read its size", errno);
  bytes_ = static_cast<std::uint64_t>(status.st_size);
}

bool BusFile::read(std::uint64_t offset, std::uint64_t bytes, void* into) const {
  if (offset > bytes_ || bytes > bytes_ - offset) return false;
  auto* to = static_cast<std::byte*>(into);
  while (bytes != 0) {
    const ssize_t got = ::pread(fd_.get(), to, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;  // it was cut short meanwhile
    to += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::uint64_t>(got);
  }
  return true;
}

const std::byte* BusFile::look(std::uint64_t offset, std::uint64_t bytes) {
  if (offset < buffer_at_ || offset + bytes > buffer_at_ + buffered_ || offset + bytes < offset) {
    if (offset > bytes_ || bytes > bytes_ - offset) return nullptr;
    buffer_at_ = offset / 8 * 8;
    const std::uint64_t wanted = std::min(std::max(ahead_bytes, bytes + 8), bytes_ - buffer_at_);
    buffered_ = 0;
    buffer_.resize((wanted + 7) / 8);
    if (!read(buffer_at_, wanted, buffer_.data())) return nullptr;
    buffered_ = wanted;
  }
  return reinterpret_cast<const std::byte*>(buffer_.data()) + (offset - buffer_at_);
}

}  // namespace ackring::exchange
