#include "common/http.h"

#include <curl/curl.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <ctime>
#include <mutex>

#include "common/error.h"
#include "common/text.h"

namespace salient {
namespace {

// TLS libraries write to sockets without MSG_NOSIGNAL: a peer that is gone must not end the program.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoPipeSignal() {
    const timespec at_once{0, 0};
    if (!was_pending_) sigtimedwait(&pipe_, nullptr, &at_once);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;

 private:
  sigset_t pipe_{};
  sigset_t before_{};
  bool was_pending_ = false;
};

void initialize_curl() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) fail(ErrorKind::kInternal, "libcurl cannot be initialised");
  });
}

struct Received {
  std::string body;
  size_t most = 0;
  bool too_large = false;
};

size_t take_body(char* data, size_t size, size_t count, void* into) {
  auto& received = *static_cast<Received*>(into);
  if (received.body.size() + size * count > received.most) {
    received.too_large = true;
    return 0;
  }
  received.body.append(data, size * count);
  return size * count;
}

int ask_cancelled(void* flag, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(flag)->load() ? 1 : 0;
}

}  // namespace

struct HttpClient::Impl {
  HttpOptions options;
  CURL* curl = nullptr;
  std::atomic<bool> cancelled{false};

  ~Impl() {
    if (curl != nullptr) curl_easy_cleanup(curl);
  }

  void set(CURLoption option, const auto& value) const {
    if (const CURLcode code = curl_easy_setopt(curl, option, value); code != CURLE_OK)
      fail(ErrorKind::kInternal, "libcurl refuses option {}: {}", static_cast<int>(option), curl_easy_strerror(code));
  }
};

HttpClient::HttpClient(HttpOptions options) : impl_(std::make_unique<Impl>()) {
  initialize_curl();
  impl_->options = std::move(options);
  impl_->curl = curl_easy_init();
  if (impl_->curl == nullptr) fail(ErrorKind::kInternal, "libcurl gives no handle");
}

HttpClient::~HttpClient() = default;

void HttpClient::cancel() { impl_->cancelled = true; }

HttpResponse HttpClient::send(const HttpRequest& request) {
  const NoPipeSignal guard;
  const HttpOptions& options = impl_->options;
  curl_easy_reset(impl_->curl);  // keeps connections
  impl_->set(CURLOPT_URL, request.url.c_str());
  impl_->set(CURLOPT_PROTOCOLS_STR, "http,https");
  impl_->set(CURLOPT_NOSIGNAL, 1L);
  impl_->set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.connect_timeout.count()));
  impl_->set(CURLOPT_TIMEOUT_MS, static_cast<long>(options.timeout.count()));
  impl_->set(CURLOPT_USERAGENT, "salient/" SALIENT_VERSION);
  impl_->set(CURLOPT_ACCEPT_ENCODING, "");  // what libcurl can unpack
  if (!options.username.empty()) {
    impl_->set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BASIC));
    impl_->set(CURLOPT_USERNAME, options.username.c_str());
    impl_->set(CURLOPT_PASSWORD, options.password.c_str());
  } else if (!options.bearer_token.empty()) {
    impl_->set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BEARER));
    impl_->set(CURLOPT_XOAUTH2_BEARER, options.bearer_token.c_str());
  }
  if (!options.ca_file.empty()) impl_->set(CURLOPT_CAINFO, options.ca_file.c_str());
  if (!options.verify_tls) {
    impl_->set(CURLOPT_SSL_VERIFYPEER, 0L);
    impl_->set(CURLOPT_SSL_VERIFYHOST, 0L);
  }
  impl_->set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  if (request.method != "GET") {
    impl_->set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    impl_->set(CURLOPT_POSTFIELDS, request.body.empty() ? "" : request.body.data());
  }
  // "Expect: 100-continue" would cost a second with servers that do not answer it.
  const std::vector<std::string> lines = {"Content-Type: " + request.content_type, "Expect:"};
  struct FreeList {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  };
  std::unique_ptr<curl_slist, FreeList> headers;
  for (const std::string& line : lines) {
    curl_slist* longer = curl_slist_append(headers.get(), line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    static_cast<void>(headers.release());
    headers.reset(longer);
  }
  impl_->set(CURLOPT_HTTPHEADER, headers.get());
  Received received;
  received.most = options.most_response_bytes;
  impl_->set(CURLOPT_WRITEFUNCTION, &take_body);
  impl_->set(CURLOPT_WRITEDATA, &received);
  impl_->set(CURLOPT_NOPROGRESS, 0L);
  impl_->set(CURLOPT_XFERINFOFUNCTION, &ask_cancelled);
  impl_->set(CURLOPT_XFERINFODATA, &impl_->cancelled);
  char reason[CURL_ERROR_SIZE] = {};
  impl_->set(CURLOPT_ERRORBUFFER, reason);

  const CURLcode code = impl_->cancelled ? CURLE_ABORTED_BY_CALLBACK : curl_easy_perform(impl_->curl);
  impl_->set(CURLOPT_ERRORBUFFER, static_cast<char*>(nullptr));
  const auto where = [&] { return fmt::format("{} {}", request.method, request.url); };
  if (code == CURLE_ABORTED_BY_CALLBACK) fail(ErrorKind::kIo, "{}: cancelled", where());
  if (received.too_large) fail(ErrorKind::kIo, "{}: the answer is larger than {}", where(), human_bytes(received.most));
  if (code == CURLE_URL_MALFORMAT || (code == CURLE_UNSUPPORTED_PROTOCOL && !request.url.starts_with("http")))
    fail(ErrorKind::kInvalidArgument, "{}: not an address of a web server, expected http://HOST:PORT", where());
  if (code != CURLE_OK) {
    Error error(ErrorKind::kIo, fmt::format("{}: {}", where(), reason[0] != 0 ? std::string(reason) : curl_easy_strerror(code)));
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
      error.with_hint("name the file of the certificate that signed the server's own");
    throw error;
  }
  HttpResponse response;
  long status = 0;
  curl_easy_getinfo(impl_->curl, CURLINFO_RESPONSE_CODE, &status);
  response.status = static_cast<int>(status);
  const char* text = nullptr;
  if (curl_easy_getinfo(impl_->curl, CURLINFO_CONTENT_TYPE, &text) == CURLE_OK && text != nullptr) response.content_type = text;
  text = nullptr;
  if (curl_easy_getinfo(impl_->curl, CURLINFO_REDIRECT_URL, &text) == CURLE_OK && text != nullptr) response.location = text;
  response.body = std::move(received.body);
  return response;
}

std::string url_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                          std::string_view("-._~").find(c) != std::string_view::npos;
    if (is_plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::string check_http_url(std::string_view url, std::string_view where) {
  const size_t scheme = url.starts_with("http://") ? 7 : url.starts_with("https://") ? 8 : 0;
  const std::string_view rest = url.substr(scheme);
  const std::string_view host = rest.substr(0, rest.find('/'));
  if (scheme != 0 && host.find('@') != std::string_view::npos) {  // not repeated in the message
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: the address holds a user name or a password, expected http://HOST:PORT", where))
        .with_hint("take it out, as addresses are written into stores and logs; credentials are read from environment variables");
  }
  const bool has_odd = std::any_of(url.begin(), url.end(), [](unsigned char c) {
    return c <= ' ' || c == 0x7F || c == '?' || c == '#' || c == '"' || c == '\\';
  });
  if (scheme == 0 || host.empty() || host.front() == ':' || has_odd)
    fail(ErrorKind::kInvalidArgument, "{}: found '{}', expected http://HOST:PORT or https://HOST", where, url);
  while (url.ends_with('/')) url.remove_suffix(1);
  return std::string(url);
}

}  // namespace salient
