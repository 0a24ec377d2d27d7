#include "lib/client/reply_error.hpp"

#include <array>

namespace ackring::client {
namespace {

constexpr std::array<ErrorCode, 15> codes = {
    ErrorCode::invalid_argument, ErrorCode::no_exchange,     ErrorCode::exchange_exists, ErrorCode::busy,
    ErrorCode::not_found,        ErrorCode::option_mismatch, ErrorCode::not_empty,       ErrorCode::layout_mismatch,
    ErrorCode::damaged,          ErrorCode::permission,      ErrorCode::no_space,        ErrorCode::closed,
    ErrorCode::protocol,         ErrorCode::timeout,         ErrorCode::system};

std::string text(const Json& reply, const char* name) {
  const auto found = reply.find(name);
  return found != reply.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

Error error_of_reply(const Json& reply) {
  const std::string name = text(reply, "code");
  ErrorCode code = ErrorCode::protocol;
  for (const ErrorCode candidate : codes) {
    if (name == to_string(candidate)) code = candidate;
  }
  std::string object = text(reply, "object");
  if (object.empty()) object = "exchange";
  std::string why = text(reply, "why");
  if (why.empty()) why = "it refused the request";
  const auto number = reply.find("errno");
  const int system_errno = number != reply.end() && number->is_number_integer() ? number->get<int>() : 0;
  return Error(code, std::move(object), std::move(why), text(reply, "advice"), system_errno);
}

Json reply_of_error(const Error& error) {
  return Json{{"ok", false},        {"code", to_string(error.code())}, {"object", error.object()},
              {"why", error.why()}, {"advice", error.advice()},        {"errno", error.system_errno()}};
}

}  // namespace ackring::client
