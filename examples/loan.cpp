// Without copies on either side: a loan is space in the publisher's own ring, written in place; a delivery is read in
// place in the subscription's ring. (The exchange copies once in between, so that no subscriber can hold up the
// publisher.)
//
//   build/release/examples/loan
//
// Prints:
//   published a frame of 640 x 480 bytes, in place
//   a loan that was given up left nothing behind
//   taken in place: 307200 bytes, the brightest is 254
#include <algorithm>
#include <cstddef>
#include <iostream>

#include <ackring/ackring.hpp>

using namespace std::chrono_literals;

int main() {
  constexpr std::size_t width = 640;
  constexpr std::size_t height = 480;
  auto bus = ackring::Bus::open("loan");
  auto subscriber = bus.subscribe({.patterns = {"camera.#"}});
  auto publisher = bus.publisher();

  if (auto frame = publisher.loan("camera.front", width * height)) {
    for (std::size_t i = 0; i < frame.data().size(); ++i) frame.data()[i] = static_cast<std::byte>(i % 255);
    if (frame.commit() != ackring::Outcome::ok) return 1;
    std::cout << "published a frame of " << width << " x " << height << " bytes, in place\n";
  }
  if (auto frame = publisher.loan("camera.front", width * height)) frame.data()[0] = std::byte{1};  // no commit()

  auto delivery = subscriber.take(5s);
  if (!delivery) return 1;
  const ackring::Bytes pixels = delivery->payload();  // good until the verdict
  const auto brightest = std::to_integer<int>(*std::max_element(pixels.begin(), pixels.end()));
  const std::size_t bytes = pixels.size();
  (void)delivery->ack();
  if (!subscriber.take(20ms)) std::cout << "a loan that was given up left nothing behind\n";
  std::cout << "taken in place: " << bytes << " bytes, the brightest is " << brightest << "\n";
}
