#include "lib/client/headers_codec.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "lib/client/reply_error.hpp"

using namespace ackring;
using client::decode_headers;

namespace {
std::vector<std::byte> encode(const Headers& headers) {
  std::vector<std::byte> bytes(client::encoded_bytes(headers));
  client::encode_headers(headers, bytes.data());
  return bytes;
}
}  // namespace

TEST_CASE("headers come back as they were") {
  const Headers headers{{"content-type", "application/json"}, {"", ""}, {"empty", ""}, {"nul", std::string("a\0b", 3)}};
  CHECK(decode_headers(encode(headers)) == headers);
  CHECK(decode_headers({}).empty());
}

TEST_CASE("a name that does not fit its length is refused") {
  CHECK(client::encoded_bytes({{std::string(65'535, 'n'), "v"}}) == 6 + 65'535 + 1);
  CHECK(client::encoded_bytes({{std::string(65'536, 'n'), "v"}}) == client::headers_too_large);
}

TEST_CASE("decoding stays inside whatever bytes it gets") {
  std::random_device device;
  const std::uint32_t seed = device();
  INFO("replay: put seed ", seed, " in place of device()");
  std::mt19937 random(seed);
  const std::vector<std::byte> whole = encode({{"a", "bc"}, {"def", "ghij"}, {"k", ""}});
  for (int round = 0; round < 2'000; ++round) {
    std::vector<std::byte> bytes(whole.begin(), whole.begin() + static_cast<long>(random() % (whole.size() + 1)));
    for (unsigned i = random() % 4; i > 0 && !bytes.empty(); --i) bytes[random() % bytes.size()] = std::byte(random());
    std::size_t total = 0;
    for (const auto& [name, value] : decode_headers(bytes)) total += 6 + name.size() + value.size();
    CHECK(total <= bytes.size());
  }
}

TEST_CASE("an error survives the control socket") {
  const Error error(ErrorCode::busy, "publisher 'a'", "somebody holds it", "close it", 11);
  const Error back = client::error_of_reply(client::reply_of_error(error));
  CHECK(back.code() == ErrorCode::busy);
  CHECK(back.system_errno() == 11);
  CHECK(std::string(back.what()) == error.what());
  CHECK(client::error_of_reply({{"code", 5}, {"errno", "x"}}).code() == ErrorCode::protocol);
  CHECK_THROWS_AS((void)client::reply_field<int>({{"a", "text"}}, "a"), Error);
}
