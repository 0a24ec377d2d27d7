#include "tools/shmtool/dlq_text.hpp"

#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "lib/shm/format.hpp"
#include "tools/common/json_text.hpp"
#include "tools/common/units.hpp"

namespace ackring::tools {
namespace {

constexpr std::size_t shown_data = 40;

// The members as they stand in the line: payloads are shown byte for byte.
std::map<std::string, std::string> members(std::string_view letter) {
  std::map<std::string, std::string> found;
  for_each_member(letter, [&found](const std::string& name, std::string_view value) { found[name] = value; });
  return found;
}

std::string text(const std::string& json) { return nlohmann::json::parse(json).get<std::string>(); }

std::string time_text(const std::string& unix_ns) { return format_time(std::stoull(unix_ns)); }

// Of a character of several bytes all or nothing.
std::string shortened(const std::string& data) {
  if (data.size() <= shown_data) return data;
  std::size_t end = shown_data;
  while (end > 0 && (static_cast<unsigned char>(data[end]) & 0xc0) == 0x80) --end;
  return data.substr(0, end) + "…";
}

std::string data_text(const std::map<std::string, std::string>& letter) {
  const auto data = letter.find("data");
  return data != letter.end() ? data->second : "base64 " + text(letter.at("data_base64"));
}

std::string event_text(const std::map<std::string, std::string>& letter) {
  return text(letter.at("publisher")) + "/" + letter.at("sequence");
}

}  // namespace

std::vector<std::string> dead_letter_titles() {
  return {">DELIVERY", "EVENT", "TOPIC", ">ATTEMPTS", "REASON", "DIED", "DATA"};
}

std::vector<std::string> dead_letter_row(std::string_view line) {
  const auto letter = members(line);
  const std::size_t attempts = nlohmann::json::parse(letter.at("attempts")).size();
  // Of the oldest attempts nothing is known where there were many.
  return {letter.at("delivery"),
          event_text(letter),
          text(letter.at("topic")),
          std::to_string(attempts) + (attempts == shm::max_history ? "+" : ""),
          shortened(text(letter.at("reason"))),
          time_text(letter.at("dead_ns")),
          shortened(data_text(letter))};
}

std::string dead_letter_text(std::string_view line) {
  const auto letter = members(line);
  std::string all =
      fmt::format("delivery {}: event {} of {}\n", letter.at("delivery"), event_text(letter), text(letter.at("topic")));
  const auto add = [&all](std::string_view title, std::string_view value) {
    all += fmt::format("  {:<10} {}\n", title, value);
  };
  add("reason", text(letter.at("reason")));
  add("died", time_text(letter.at("dead_ns")));
  add("published", time_text(letter.at("published_ns")));
  if (letter.at("key") != "\"\"") add("key", letter.at("key"));
  if (letter.at("headers") != "{}") add("headers", letter.at("headers"));
  std::string_view title = "attempts";
  for (const auto& attempt : nlohmann::json::parse(letter.at("attempts"))) {
    add(title, format_time(attempt.at("time_ns").get<std::uint64_t>()) + " " + attempt.at("cause").get<std::string>());
    title = "";
  }
  add("data", data_text(letter));
  return all;
}

}  // namespace ackring::tools
