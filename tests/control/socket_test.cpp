#include "lib/control/socket.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/control/socket_peer.hpp"

using namespace socket_test;

TEST_CASE("messages arrive whole, in order, with their descriptors") {
  const std::size_t before = open_descriptors();
  {
    auto [a, b] = Socket::make_pair();
    CHECK(receive_status(b) == ReceiveStatus::nothing_yet);
    CHECK_FALSE(b.wait_readable(0));
    int pipe_ends[2];
    REQUIRE(::pipe2(pipe_ends, O_CLOEXEC) == 0);
    const UniqueFd read_end(pipe_ends[0]);
    UniqueFd write_end(pipe_ends[1]);
    CHECK(a.send({{"id", 1}, {"op", "hello"}}, {write_end.get()}) == SendStatus::sent);
    CHECK(a.send({{"id", 2}, {"text", "\xc3\xa4"}}) == SendStatus::sent);
    write_end.reset();
    CHECK(b.wait_readable(5 * second_ns));
    Message message;
    std::string reason;
    REQUIRE(b.receive(message, reason) == ReceiveStatus::message);
    CHECK(message.body == Json{{"id", 1}, {"op", "hello"}});
    REQUIRE(message.descriptors.size() == 1);
    CHECK((::fcntl(message.descriptors[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(::write(message.descriptors[0].get(), "x", 1) == 1);
    char c = 0;
    CHECK(::read(read_end.get(), &c, 1) == 1);
    REQUIRE(b.receive(message, reason) == ReceiveStatus::message);
    CHECK(message.body.at("text") == "\xc3\xa4");
    CHECK(message.descriptors.empty());
    CHECK(b.send({{"ok", true}}) == SendStatus::sent);  // both ways
    CHECK(receive_status(a) == ReceiveStatus::message);
    const Credentials who = a.credentials();
    CHECK(who.pid == ::getpid());
    CHECK(who.uid == ::getuid());
    CHECK(who.gid == ::getgid());
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("limits of a message: size, descriptors, nesting; at and past each") {
  auto [a, b] = Socket::make_pair();
  const std::size_t frame = Json{{"t", ""}}.dump().size();
  CHECK(a.send({{"t", std::string(max_message_bytes - frame, 'x')}}) == SendStatus::sent);
  CHECK(receive_status(b) == ReceiveStatus::message);
  CHECK(a.send({{"t", std::string(max_message_bytes - frame + 1, 'x')}}) == SendStatus::too_large);
  CHECK(receive_status(b) == ReceiveStatus::nothing_yet);

  CHECK(a.send(Json::object(), std::vector<int>(max_descriptors, 0)) == SendStatus::sent);
  Message message;
  std::string reason;
  REQUIRE(b.receive(message, reason) == ReceiveStatus::message);
  CHECK(message.descriptors.size() == max_descriptors);
  CHECK(a.send(Json::object(), std::vector<int>(max_descriptors + 1, 0)) == SendStatus::too_large);

  for (const std::size_t depth : {std::size_t{1}, std::size_t{2}, max_nesting}) {
    CHECK(send_raw(a, nested(depth)));
    CHECK(receive_status(b) == ReceiveStatus::message);
  }
  for (const std::size_t depth : {max_nesting + 1, std::size_t{1'000}, std::size_t{30'000}}) {
    CHECK(send_raw(a, nested(depth)));
    CHECK(receive_status(b, &reason) == ReceiveStatus::malformed);
    CHECK(reason.find("nested") != std::string::npos);
  }
  CHECK(send_raw(a, "{\"brackets in a string\":\"[[[[[[[[[[[[[[[[[[[[[[\\\"{{{{{{{{{{{{{{{\"}"));
  CHECK(receive_status(b) == ReceiveStatus::message);
}

TEST_CASE("malformed messages: each is told apart, nothing is thrown, no descriptor stays (F27)") {
  auto [a, b] = Socket::make_pair();
  const std::size_t before = open_descriptors();
  using namespace std::string_view_literals;
  for (const std::string_view text : {"x"sv,
                                      "{"sv,
                                      "{\"op\":\"hel"sv,
                                      "{\"op\":1}}"sv,
                                      "{}{}"sv,
                                      "[]"sv,
                                      "1"sv,
                                      "\"text\""sv,
                                      "null"sv,
                                      "true"sv,
                                      " "sv,
                                      "{\"a\":\"\xff\xfe\"}"sv,
                                      "{\"a\":\"\xc3\"}"sv,
                                      "{\"a\":\"\\ud800\"}"sv,
                                      "{\"a\":1e999}"sv,
                                      "{\"a\":nan}"sv,
                                      "\0"sv,
                                      "{}\0{}"sv,
                                      "{}\0"sv,
                                      "{\"a\":\"\0\"}"sv,
                                      "{'a':1}"sv,
                                      "{\"a\":1,}"sv,
                                      "}{"sv,
                                      "]]]]"sv,
                                      "\"[[[[[[[[[[[[[[[[[[["sv}) {
    CAPTURE(text);
    CHECK(send_raw(a, text, 3));
    CHECK(receive_status(b) == ReceiveStatus::malformed);
  }
  std::string reason;
  CHECK(send_raw(a, ""));
  CHECK(receive_status(b, &reason) == ReceiveStatus::malformed);
  CHECK(reason.find("empty") != std::string::npos);
  CHECK(send_raw(a, "", 2));
  CHECK(receive_status(b) == ReceiveStatus::malformed);
  CHECK(send_raw(a, "{}" + std::string(max_message_bytes - 1, ' '), 2));  // would be a message but for its size
  CHECK(receive_status(b, &reason) == ReceiveStatus::malformed);
  CHECK(reason.find("65536") != std::string::npos);
  for (const std::size_t surplus : {max_descriptors + 1, max_descriptors + 2, std::size_t{64}}) {
    CHECK(send_raw(a, "{}", surplus));
    CHECK(receive_status(b, &reason) == ReceiveStatus::malformed);
    CHECK(reason.find("descriptors") != std::string::npos);
  }
  CHECK(open_descriptors() == before);
  // The owner closes such a connection; the socket itself is not confused.
  CHECK(a.send({{"still", "alive"}}) == SendStatus::sent);
  CHECK(receive_status(b) == ReceiveStatus::message);
}

TEST_CASE("random bytes are malformed or an object, and leak nothing") {
  const char* given = std::getenv("ACKRING_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 4'711;
  MESSAGE("seed " << seed << "; replay with ACKRING_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  auto [a, b] = Socket::make_pair();
  const std::size_t before = open_descriptors();
  const std::string valid =
      R"({"id":7,"op":"subscribe","patterns":["a.#","*.b"],"options":{"x":[1,2.5e3,null,true,"\u00e4"]}})";
  std::size_t malformed = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = valid;
    for (std::size_t edits = 1 + random() % 4; edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 8);
          break;
        case 2:
          text.insert(at, 1 + random() % 20, "[{\"\\:,0"[random() % 7]);
          break;
        default:
          text.resize(at + 1);
          break;
      }
      if (text.empty()) text = "{";
    }
    REQUIRE(send_raw(a, text, random() % 12));
    const ReceiveStatus status = receive_status(b);
    REQUIRE((status == ReceiveStatus::message || status == ReceiveStatus::malformed));
    malformed += status == ReceiveStatus::malformed ? 1 : 0;
  }
  CHECK(malformed > 10'000);
  CHECK(open_descriptors() == before);
}

TEST_CASE("a peer that does not read: send says full and never blocks; it goes on when the peer reads (F23)") {
  auto [a, b] = Socket::make_pair();
  const Json body{{"text", std::string(1'000, 'x')}};
  std::size_t sent = 0;
  while (sent < 1'000'000 && a.send(body) == SendStatus::sent) ++sent;
  CHECK(sent > 10);
  CHECK(sent < 1'000'000);
  CHECK(a.send(body) == SendStatus::full);
  CHECK_FALSE(a.wait_readable_or_room(0));
  CHECK_FALSE(a.hung_up());
  CHECK(b.send(body) == SendStatus::sent);
  CHECK(a.wait_readable_or_room(5 * second_ns));  // what the peer says is heard meanwhile
  CHECK(receive_status(a) == ReceiveStatus::message);
  CHECK_FALSE(a.wait_readable_or_room(1));
  for (std::size_t i = 0; i < sent; ++i) REQUIRE(receive_status(b) == ReceiveStatus::message);
  CHECK(receive_status(b) == ReceiveStatus::nothing_yet);
  CHECK(a.wait_readable_or_room(5 * second_ns));
  CHECK(a.send(body) == SendStatus::sent);
  while (a.send(body) == SendStatus::sent) {
  }
  b.close();
  CHECK(a.hung_up());
  CHECK(a.wait_readable_or_room(5 * second_ns));
  CHECK(a.send(body) == SendStatus::closed);
}

TEST_CASE("a peer that is gone: what it sent is read first, then closed; send says so and raises no signal") {
  auto [a, b] = Socket::make_pair();
  CHECK(a.send({{"last", "words"}}) == SendStatus::sent);
  a.close();
  CHECK_FALSE(a);
  CHECK(b.wait_readable(5 * second_ns));
  CHECK(receive_status(b) == ReceiveStatus::message);
  CHECK(b.wait_readable(5 * second_ns));
  CHECK(receive_status(b) == ReceiveStatus::closed);
  CHECK(b.send({{"any", "body"}}) == SendStatus::closed);
  CHECK(a.send({{"on a", "closed socket"}}) == SendStatus::closed);
  CHECK(receive_status(a) == ReceiveStatus::closed);

  // Gone with messages unread.
  auto [c, d] = Socket::make_pair();
  CHECK(c.send({{"un", "read"}}) == SendStatus::sent);
  d.close();
  CHECK(receive_status(c) == ReceiveStatus::closed);
}

TEST_CASE("text that is no UTF-8 is sent with replacement characters") {
  auto [a, b] = Socket::make_pair();
  CHECK(a.send({{"path", "/tmp/\xff"}}) == SendStatus::sent);
  Message message;
  std::string reason;
  REQUIRE(b.receive(message, reason) == ReceiveStatus::message);
  CHECK(message.body.at("path") == "/tmp/\xef\xbf\xbd");
}
