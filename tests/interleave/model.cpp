#include "tests/interleave/model.hpp"

#include <algorithm>
#include <cstring>

namespace ackring::test::interleave {

namespace {

std::uint64_t value_at(const void* at, std::size_t bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, at, bytes);
  return value;
}

std::uint64_t cut(std::uint64_t value, std::size_t bytes) {
  return bytes == 8 ? value : value & ((std::uint64_t{1} << (8 * bytes)) - 1);
}

}  // namespace

void Clock::join(const Clock& other) {
  join_view(other);
  for (std::size_t i = 0; i < time.size(); ++i) time[i] = std::max(time[i], other.time[i]);
}

void Clock::join_view(const Clock& other) {
  for (std::size_t i = 0; i < view.size(); ++i) view[i] = std::max(view[i], other.view[i]);
}

void Model::reset(std::size_t roles, bool membarrier, Chooser& chooser) {
  used_ = 0;
  index_.fill(0);
  for (std::size_t i = 0; i < roles; ++i) roles_[i] = Role{};
  role_count_ = roles;
  membarrier_ = membarrier;
  sequential_ = everyone_ = Clock{};
  chooser_ = &chooser;
  stores_ = 0;
  failure_.clear();
}

void Model::name(const void* word, std::string text) {
  for (auto& [at, old] : names_) {
    if (at == word) {
      old = std::move(text);
      return;
    }
  }
  names_.emplace_back(word, std::move(text));
}

// The nearest name at or below the address, within a cache line.
std::string Model::name_of(const void* word) const {
  const auto address = reinterpret_cast<std::uintptr_t>(word);
  std::string result = "a word without a name";
  std::uintptr_t best = ~std::uintptr_t{0};
  for (const auto& [at, text] : names_) {
    const std::uintptr_t distance = address - reinterpret_cast<std::uintptr_t>(at);
    if (distance >= best || distance >= 1024) continue;
    best = distance;
    result = distance == 0 ? text : text + "+" + std::to_string(distance);
  }
  return result;
}

void Model::fail(std::string what) {
  if (failure_.empty()) failure_ = std::move(what);
}

std::size_t Model::find(const void* at, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  std::size_t slot = (address ^ address >> 9) * 0x9e37 >> 3 & (index_.size() - 1);
  while (index_[slot] != 0) {
    Word& word = words_[index_[slot] - 1u];
    if (word.at == at) {
      if (word.bytes != bytes) fail("the accesses to " + name_of(at) + " are of different sizes");
      return index_[slot] - 1u;
    }
    slot = (slot + 1) & (index_.size() - 1);
  }
  if (used_ == max_words) {
    fail("a scenario may use " + std::to_string(max_words) + " words: make it smaller");
    return 0;
  }
  if (used_ == words_.size()) words_.emplace_back();
  Word& word = words_[used_];
  word.at = at;
  word.bytes = bytes;
  word.writer = max_roles;
  word.written = 0;
  word.read = {};
  word.count = 1;
  if (word.values.empty()) word.values.emplace_back();
  word.values[0] = {value_at(at, bytes), true, false, max_roles, {}};
  index_[slot] = static_cast<std::uint8_t>(used_ + 1);
  return used_++;
}

void Model::tick(std::size_t role) { ++roles_[role].now.time[role]; }

// Index of the value that a load reads.
std::size_t Model::pick(const Role& role, std::size_t word) {
  const std::size_t newest = words_[word].count - 1;
  const std::size_t options = newest - role.now.view[word] + 1;
  return options == 1 ? newest : newest - chooser_->choose_value(options);
}

std::uint64_t Model::take(Role& role, std::size_t word, std::size_t index, std::memory_order order) {
  const Value& seen = words_[word].values[index];
  role.now.view[word] = std::max(role.now.view[word], static_cast<std::uint16_t>(index));
  role.acquirable.join(seen.clock);
  if (acquires(order)) role.now.join(seen.clock);
  return seen.value;
}

Model::Value& Model::append(std::size_t by, std::size_t word, std::uint64_t value, std::memory_order order) {
  Role& role = roles_[by];
  Word& target = words_[word];
  ++stores_;
  const std::size_t index = target.count++;
  if (target.values.size() == index) target.values.emplace_back();
  role.now.view[word] = static_cast<std::uint16_t>(index);
  Value& stored = target.values[index];
  stored.value = value;
  stored.known = true;
  stored.exchanged = false;
  stored.role = by;
  stored.clock = releases(order) ? role.now : role.released;
  stored.clock.view[word] = static_cast<std::uint16_t>(index);
  return stored;
}

// A store that does not come after the one before it: the two could just as well be the other way round.
void Model::check_order(std::size_t role, std::size_t word) {
  const std::size_t newest = words_[word].count - 1;
  const Value& last = words_[word].values[newest];
  if (last.exchanged || last.role == role || last.role == max_roles || roles_[role].now.view[word] == newest) return;
  fail("nothing orders the stores of two roles to " + name_of(words_[word].at));
}

std::uint64_t Model::load(std::size_t role, const void* word, std::size_t bytes, std::memory_order order) {
  if (order == std::memory_order_seq_cst) fail("seq_cst accesses are not modelled: use a fence");
  tick(role);
  const std::size_t at = find(word, bytes);
  return take(roles_[role], at, pick(roles_[role], at), order);
}

void Model::store(std::size_t role, void* word, std::size_t bytes, std::uint64_t value, std::memory_order order) {
  if (order == std::memory_order_seq_cst) fail("seq_cst accesses are not modelled: use a fence");
  tick(role);
  const std::size_t at = find(word, bytes);
  check_order(role, at);
  append(role, at, cut(value, bytes), order);
  std::memcpy(word, &value, bytes);
}

std::uint64_t Model::fetch_add(std::size_t role, void* word, std::size_t bytes, std::uint64_t add,
                               std::memory_order order) {
  tick(role);
  const std::size_t at = find(word, bytes);
  const std::size_t newest = words_[at].count - 1;
  const std::uint64_t old = take(roles_[role], at, newest, order);
  const std::uint64_t value = cut(old + add, bytes);
  Value& stored = append(role, at, value, order);
  stored.exchanged = true;
  stored.clock.join(words_[at].values[newest].clock);  // the release sequence goes on
  std::memcpy(word, &value, bytes);
  return old;
}

bool Model::exchange_if(std::size_t role, void* word, std::size_t bytes, std::uint64_t& expected, std::uint64_t desired,
                        std::memory_order order) {
  tick(role);
  const std::size_t at = find(word, bytes);
  const std::size_t newest = words_[at].count - 1;
  const std::size_t index = pick(roles_[role], at);
  // An exchange reads the newest value, or an older one that differs from what it expects.
  if (words_[at].values[index].value != expected || words_[at].values[newest].value != expected) {
    const std::size_t seen = words_[at].values[index].value != expected ? index : newest;
    expected = take(roles_[role], at, seen, std::memory_order_relaxed);
    return false;
  }
  take(roles_[role], at, newest, order);
  Value& stored = append(role, at, cut(desired, bytes), order);
  stored.exchanged = true;
  stored.clock.join(words_[at].values[newest].clock);
  std::memcpy(word, &desired, bytes);
  return true;
}

void Model::fence(std::size_t role, std::memory_order order) {
  tick(role);
  Role& self = roles_[role];
  if (acquires(order)) self.now.join(self.acquirable);
  if (order == std::memory_order_seq_cst) {
    self.now.join_view(sequential_);
    sequential_.join_view(self.now);
  }
  if (releases(order)) self.released = self.now;
}

// Pairs with everyone_fences() only, as the asymmetric fences of the C++ proposal P1202 do: whichever of the two comes
// first has its past seen by the other.
void Model::compiler_fence(std::size_t role, std::memory_order order) {
  tick(role);
  if (order != std::memory_order_seq_cst) return;  // what is weaker lets a later load pass an earlier store
  roles_[role].now.join_view(everyone_);
  roles_[role].fenced = roles_[role].now;
}

bool Model::everyone_fences(std::size_t role) {
  if (!membarrier_) return false;
  fence(role, std::memory_order_seq_cst);  // the system call is a full barrier of its caller
  for (std::size_t other = 0; other < role_count_; ++other) everyone_.join_view(roles_[other].fenced);
  Role& self = roles_[role];
  self.now.join_view(everyone_);
  everyone_.join_view(self.now);
  self.released = self.now;
  return true;
}

template <class Each>
void Model::each_granule(const void* at, std::size_t bytes, Each each) {
  const auto begin = reinterpret_cast<std::uintptr_t>(at) & ~std::uintptr_t{7};
  const auto end = reinterpret_cast<std::uintptr_t>(at) + bytes;
  for (std::uintptr_t granule = begin; granule < end; granule += 8) {
    each(reinterpret_cast<void*>(granule), find(reinterpret_cast<void*>(granule), 8));
  }
}

void Model::check_plain_write(std::size_t role, std::size_t word) {
  const Clock& now = roles_[role].now;
  Word& target = words_[word];
  if (target.writer != max_roles && target.writer != role && target.written > now.time[target.writer]) {
    fail("data race: " + name_of(target.at) + " is written while another role writes it");
  }
  for (std::size_t other = 0; other < role_count_; ++other) {
    if (other != role && target.read[other] > now.time[other]) {
      fail("data race: " + name_of(target.at) + " is written while another role reads it");
    }
  }
  target.writer = role;
  target.written = now.time[role];
}

void Model::check_plain_read(std::size_t role, std::size_t word) {
  const Clock& now = roles_[role].now;
  Word& target = words_[word];
  if (target.writer != max_roles && target.writer != role && target.written > now.time[target.writer]) {
    fail("data race: " + name_of(target.at) + " is read while another role writes it");
  }
  target.read[role] = now.time[role];
}

void Model::write(std::size_t role, void* to, const void* from, std::size_t bytes) {
  tick(role);
  each_granule(to, bytes, [&](void*, std::size_t word) { check_plain_write(role, word); });
  if (from != nullptr) std::memcpy(to, from, bytes);
  each_granule(to, bytes, [&](const void* granule, std::size_t word) {
    append(role, word, value_at(granule, 8), std::memory_order_relaxed).known = from != nullptr;
  });
}

void Model::read(std::size_t role, const void* from, std::size_t bytes) {
  tick(role);
  each_granule(from, bytes, [&](const void*, std::size_t word) { check_plain_read(role, word); });
}

void Model::read_changing(std::size_t role, void* to, const void* from, std::size_t bytes) {
  tick(role);
  const auto begin = reinterpret_cast<std::uintptr_t>(from);
  each_granule(from, bytes, [&](void* granule, std::size_t word) {
    const std::size_t index = pick(roles_[role], word);
    if (!words_[word].values[index].known) fail("bytes that were written in place are copied while they may change");
    const std::uint64_t value = take(roles_[role], word, index, std::memory_order_relaxed);
    const auto at = reinterpret_cast<std::uintptr_t>(granule);
    const std::uintptr_t first = std::max(at, begin);
    const std::uintptr_t last = std::min(at + 8, begin + bytes);
    std::memcpy(static_cast<std::byte*>(to) + (first - begin),
                reinterpret_cast<const std::byte*>(&value) + (first - at), last - first);
  });
}

}  // namespace ackring::test::interleave
