// TraceContext: reading and writing `traceparent`.
#include "ackring/trace_context.hpp"

#include <errno.h>
#include <sys/random.h>

#include <algorithm>
#include <span>

#include "ackring/error.hpp"
#include "lib/shm/system_error.hpp"

namespace ackring {
namespace {

// Of version 00; later ones may go on behind it, after another dash.
constexpr std::size_t version_at = 0;
constexpr std::size_t trace_at = 3;
constexpr std::size_t span_at = 36;
constexpr std::size_t flags_at = 53;
constexpr std::size_t text_bytes = 55;
constexpr std::string_view digits = "0123456789abcdef";

// Reads two digits per byte. False: one is none; capitals are none, says the standard.
bool read_hex(std::string_view text, std::span<std::uint8_t> to) noexcept {
  for (std::size_t i = 0; i < to.size(); ++i) {
    const std::size_t high = digits.find(text[2 * i]);
    const std::size_t low = digits.find(text[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return false;
    to[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

void write_hex(std::string& text, std::span<const std::uint8_t> bytes) {
  for (const std::uint8_t byte : bytes) {
    text += digits[byte / 16u];
    text += digits[byte % 16u];
  }
}

bool all_zero(std::span<const std::uint8_t> bytes) noexcept {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

// Until it is valid, which it is at once but for one in 2^64.
void randomise(std::span<std::uint8_t> id) {
  do {
    if (::getentropy(id.data(), id.size()) != 0) {
      throw shm::system_error("TraceContext", "the system has no random bytes to give", errno);
    }
  } while (all_zero(id));
}

// nullptr: `context` is what `text` says. Otherwise what is wrong with it.
const char* read(std::string_view text, TraceContext& context) noexcept {
  if (text.size() < text_bytes) return "it is shorter than 55 characters";
  if (text[trace_at - 1] != '-' || text[span_at - 1] != '-' || text[flags_at - 1] != '-') {
    return "its parts are not divided by '-' as 2, 32, 16 and 2 digits";
  }
  std::array<std::uint8_t, 1> version{};
  std::array<std::uint8_t, 1> flags{};
  if (!read_hex(text.substr(version_at), version) || !read_hex(text.substr(trace_at), context.trace_id) ||
      !read_hex(text.substr(span_at), context.span_id) || !read_hex(text.substr(flags_at), flags)) {
    return "a digit is not one of 0-9 and a-f";
  }
  if (version[0] == 0xff) return "there is no version ff";
  if (text.size() > text_bytes && (version[0] == 0 || text[text_bytes] != '-')) return "it goes on behind its flags";
  if (all_zero(context.trace_id)) return "its trace id is all zero";
  if (all_zero(context.span_id)) return "its span id is all zero";
  context.flags = flags[0];
  return nullptr;
}

}  // namespace

bool TraceContext::valid() const noexcept { return !all_zero(trace_id) && !all_zero(span_id); }

TraceContext TraceContext::child() const {
  TraceContext context = *this;
  randomise(context.span_id);
  return context;
}

std::string TraceContext::to_string() const {
  std::string text = "00-";
  write_hex(text, trace_id);
  text += '-';
  write_hex(text, span_id);
  text += '-';
  write_hex(text, {&flags, 1});
  return text;
}

TraceContext TraceContext::start(bool sampled) {
  TraceContext context;
  randomise(context.trace_id);
  randomise(context.span_id);
  context.flags = sampled ? 1 : 0;
  return context;
}

TraceContext TraceContext::parse(std::string_view text) {
  TraceContext context;
  const char* wrong = read(text, context);
  if (wrong == nullptr) return context;
  throw Error(ErrorCode::invalid_argument, "traceparent '" + std::string(text.substr(0, 2 * text_bytes)) + "'", wrong,
              "write 00-<trace id: 32 hex digits>-<span id: 16>-<flags: 2>");
}

std::optional<TraceContext> traceparent_of(const Headers& headers) {
  TraceContext context;
  for (const auto& [name, value] : headers) {
    if (name == traceparent_header) return read(value, context) == nullptr ? std::optional(context) : std::nullopt;
  }
  return std::nullopt;
}

std::optional<TraceContext> traceparent_of(const Delivery& delivery) { return traceparent_of(delivery.headers()); }

void set_traceparent(Headers& headers, const TraceContext& context) {
  std::erase_if(headers, [](const auto& header) { return header.first == traceparent_header; });
  headers.emplace_back(traceparent_header, context.to_string());
}

}  // namespace ackring
