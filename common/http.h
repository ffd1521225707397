// HTTP requests to services that results are sent to: bounded in time and size, over TLS where the address says https. Through
// libcurl.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace salient {

// How requests are made, the same for all of a client.
struct HttpOptions {
  std::chrono::milliseconds connect_timeout{3'000};
  std::chrono::milliseconds timeout{20'000};  // of a whole request, its answer included
  size_t most_response_bytes = size_t{16} << 20;
  // At most one of the two; sent with every request.
  std::string username, password;  // basic authentication where `username` is not empty
  std::string bearer_token;
  std::string ca_file;     // certificates to trust instead of the system's
  bool verify_tls = true;  // false: any certificate will do
};

struct HttpRequest {
  std::string method = "GET";  // GET, POST, PUT
  std::string url;             // http:// or https://
  std::string_view body = {};
  std::string content_type = {};  // of the body
};

struct HttpResponse {
  int status = 0;
  std::string content_type;
  std::string location;  // where a redirection points, else empty
  std::string body;
};

// Keeps its connection from request to request. Redirections are answers like others: credentials go nowhere but to the address
// that was named. Proxies are those of the environment (http_proxy, https_proxy, no_proxy), as with curl.
class HttpClient {
 public:
  explicit HttpClient(HttpOptions options = {});
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Any status is an answer. Errors: io, naming the address and what went wrong (no such host, refused, out of time, broken off,
  // certificate not trusted, answer too large, cancelled); invalid argument for an address that is none.
  HttpResponse send(const HttpRequest& request);

  // From any thread: the request under way, and every later one, ends within about a second with "cancelled".
  void cancel();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One part of a path or a value of a query: everything but letters, digits and "-._~" as %XX.
std::string url_escape(std::string_view text);

// The address without a slash at its end. Errors: invalid argument, beginning with `where`, for anything but http://HOST... and
// https://HOST..., for blanks, a query or fragment, and for a user name or password in it, which would be written into stores and
// logs.
std::string check_http_url(std::string_view url, std::string_view where);

}  // namespace salient
