// A web server of one thread on the loopback device, which does to each request what a test says: for clients that must stand
// anything.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace salient::test {

struct TinyRequest {
  std::string method;
  std::string target;  // "/health?a=b"
  std::string head;    // request line and header lines
  std::string body;

  std::string header(const std::string& name) const {  // as it is spelled; "" when it is not there
    const size_t at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return {};
    const size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
};

// A whole answer as it goes over the wire.
inline std::string tiny_answer(int status, const std::string& body, const std::string& content_type = "application/json",
                               const std::string& more = "") {
  return "HTTP/1.1 " + std::to_string(status) + " Status\r\nContent-Type: " + content_type +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n" + more + "\r\n" + body;
}

class TinyServer {
 public:
  // What is written before the connection is closed; nothing: no answer at all, and the connection stays open until the client or
  // the server ends.
  using Handler = std::function<std::optional<std::string>(const TinyRequest&)>;

  explicit TinyServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 16) != 0 || ::pipe(stop_) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("cannot listen on the loopback device");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~TinyServer() {
    static_cast<void>(!::write(stop_[1], "x", 1));
    thread_.join();
    for (const int descriptor : held_) ::close(descriptor);
    for (const int descriptor : {listener_, stop_[0], stop_[1]}) ::close(descriptor);
  }
  TinyServer(const TinyServer&) = delete;
  TinyServer& operator=(const TinyServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<TinyRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    for (;;) {
      pollfd waits[2] = {{listener_, POLLIN, 0}, {stop_[0], POLLIN, 0}};
      ::poll(waits, 2, -1);
      if (waits[1].revents != 0) return;
      const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      const std::optional<TinyRequest> request = read(client);
      std::optional<std::string> answer = "";
      if (request) {
        {
          const std::lock_guard lock(mutex_);
          requests_.push_back(*request);
        }
        answer = handler_(*request);
      }
      if (!answer) {
        held_.push_back(client);
        continue;
      }
      for (size_t at = 0; at < answer->size();) {
        const ssize_t count = ::send(client, answer->data() + at, answer->size() - at, MSG_NOSIGNAL);
        if (count <= 0) break;
        at += static_cast<size_t>(count);
      }
      ::close(client);
    }
  }

  // Nothing when the client went away, or took longer than five seconds.
  static std::optional<TinyRequest> read(int client) {
    const timeval limit{5, 0};
    ::setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    std::string text;
    char buffer[1 << 14];
    size_t end = std::string::npos;
    size_t length = 0;
    while (end == std::string::npos || text.size() < end + 4 + length) {
      const ssize_t count = ::recv(client, buffer, sizeof(buffer), 0);
      if (count <= 0) return std::nullopt;
      text.append(buffer, static_cast<size_t>(count));
      if (end != std::string::npos || (end = text.find("\r\n\r\n")) == std::string::npos) continue;
      const size_t at = text.find("Content-Length: ");
      if (at != std::string::npos && at < end) length = std::strtoul(text.c_str() + at + 16, nullptr, 10);
    }
    TinyRequest request;
    request.head = text.substr(0, end + 2);
    request.body = text.substr(end + 4);
    request.method = text.substr(0, text.find(' '));
    const size_t target = request.method.size() + 1;
    request.target = text.substr(target, text.find(' ', target) - target);
    return request;
  }

  Handler handler_;
  int listener_ = -1;
  int stop_[2] = {-1, -1};
  int port_ = 0;
  std::vector<int> held_;
  mutable std::mutex mutex_;
  std::vector<TinyRequest> requests_;  // guarded by mutex_
  std::thread thread_;
};

// A port of the loopback device that nobody listens on.
inline int free_port() {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool found = ::bind(descriptor, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(descriptor);
  if (!found) throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

}  // namespace salient::test
