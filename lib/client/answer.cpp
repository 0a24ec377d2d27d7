#include "lib/client/answer.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "lib/shm/system_error.hpp"

namespace ackring::client {

std::string read_answer(Reply& reply) {
  const shm::UniqueFd file = reply.take(0);
  reply.no_fork.unlock();
  struct stat status {};
  if (::fstat(file.get(), &status) != 0)
    throw shm::system_error("answer of the exchange", "can't read its size", errno);
  std::string content(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t got = ::pread(file.get(), content.data() + done, content.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw shm::system_error("answer of the exchange", "can't read it", errno);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  content.resize(done);
  return content;
}

void each_record(std::string_view records, const std::function<void(const ring::EventParts&)>& each) {
  for (std::size_t at = 0; at < records.size();) {
    const auto* record = reinterpret_cast<const std::byte*>(records.data()) + at;
    const std::size_t left = records.size() - at;
    const auto* header = reinterpret_cast<const shm::RecordHeader*>(record);
    if (left < sizeof(shm::RecordHeader) || header->bytes > left || header->bytes < sizeof(shm::RecordHeader)) {
      throw Error(ErrorCode::protocol, "answer of the exchange", "an event is cut off", "try again");
    }
    each(ring::parts(record));
    at += header->bytes;
  }
}

}  // namespace ackring::client
