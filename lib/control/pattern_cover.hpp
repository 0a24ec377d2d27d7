// Does one pattern cover another: is every topic that the one matches a topic that the other matches, too?
#pragma once

#include <string_view>

namespace ackring::control {

/// True if every topic that matches `inner` also matches `outer`. Both valid. Exact as far as words go; that topics end
/// at 255 bytes is left out of account, which can only make the answer false. It looks at a bounded number of states
/// (cover_states), and answers false where that does not do: only patterns made for the purpose need so many.
/// Thread rules: any thread.
[[nodiscard]] bool covers(std::string_view outer, std::string_view inner);

inline constexpr int cover_states = 4096;

}  // namespace ackring::control
