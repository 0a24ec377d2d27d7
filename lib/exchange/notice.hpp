// Notice: something that an operator wants to know about, as the exchange tells it to the program that it runs in. The
// library prints nothing: whoever makes a Host says what becomes of its notices, and without anybody none is made.
//
// Thread rules: plain values; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace ackring::exchange {

struct Notice {
  enum class Level : std::uint8_t { debug, info, warning, error };
  using Value = std::variant<std::uint64_t, std::string>;

  Level level = Level::info;
  /// What kind of thing happened: `member.left`. The names are listed in docs/configuration.md.
  const char* event = "";
  /// The whole of it for people. Clients choose parts of it, such as their names: any bytes may be in there.
  std::string text;
  /// The same for programs.
  std::vector<std::pair<const char*, Value>> fields = {};
};

/// Takes a notice; empty: nobody wants them.
using NoticeSink = std::function<void(const Notice&)>;

}  // namespace ackring::exchange
