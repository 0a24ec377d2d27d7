// Access: what the runtime needs of handles beyond what users may do with them.
//
// Thread rules: those of the handles.
#pragma once

#include <memory>
#include <utility>

#include "ackring/delivery.hpp"
#include "ackring/subscriber.hpp"
#include "lib/client/member.hpp"

namespace ackring::client {

struct Access {
  static const std::shared_ptr<Member>& member(const Subscriber& subscriber) noexcept { return subscriber.member_; }

  /// Makes an empty Delivery one of this view, without a look at a reference count.
  static void bind(Delivery& delivery, std::shared_ptr<Member>&& member, const DeliveryView& view) noexcept {
    delivery.member_ = std::move(member);
    delivery.record_ = view.record;
    delivery.entry_ = view.entry;
  }
  /// Takes the member out of it again; nullptr if there was a verdict, or the Delivery was moved away. Gives no verdict.
  static std::shared_ptr<Member> unbind(Delivery& delivery) noexcept {
    delivery.record_ = nullptr;
    delivery.copy_.reset();
    return std::exchange(delivery.member_, nullptr);
  }
};

}  // namespace ackring::client
