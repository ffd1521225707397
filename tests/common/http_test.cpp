#include "common/http.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "support/thrown_error.h"
#include "support/tiny_server.h"

namespace salient {
namespace {

using test::tiny_answer;
using test::TinyRequest;
using test::TinyServer;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

HttpOptions quick() {
  HttpOptions options;
  options.timeout = std::chrono::milliseconds(500);
  return options;
}

double seconds_of(const auto& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(Http, SendsBodyAndHeadersAndReadsTheAnswer) {
  TinyServer server(
      [](const TinyRequest& request) { return tiny_answer(201, request.method + request.target + request.body, "text/plain"); });
  HttpClient client;
  const std::string body(100'000, 'b');
  for (const char* method : {"POST", "PUT"}) {
    const HttpResponse answer = client.send({method, server.url() + "/a%20b?c=d", body, "application/json"});
    EXPECT_EQ(answer.status, 201);
    EXPECT_EQ(answer.content_type, "text/plain");
    EXPECT_EQ(answer.body, method + std::string("/a%20b?c=d") + body);
  }
  EXPECT_EQ(client.send({"GET", server.url() + "/x", {}, {}}).body, "GET/x");
  const std::vector<TinyRequest> requests = server.requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].header("Content-Type"), "application/json");
  EXPECT_EQ(requests[0].header("User-Agent"), "salient/" SALIENT_VERSION);
  EXPECT_EQ(requests[0].header("Authorization"), "");
  EXPECT_EQ(requests[2].header("Content-Length"), "");
}

TEST(Http, EmptyBodyIsABody) {
  TinyServer server([](const TinyRequest&) { return tiny_answer(200, ""); });
  EXPECT_EQ(HttpClient(quick()).send({"PUT", server.url() + "/empty", {}, "text/html"}).status, 200);
  EXPECT_EQ(server.requests().at(0).header("Content-Length"), "0");
}

TEST(Http, CredentialsGoAlong) {
  TinyServer server([](const TinyRequest&) { return tiny_answer(200, "{}"); });
  HttpOptions basic = quick();
  basic.username = "ann";
  basic.password = "s3:cret";
  HttpClient(basic).send({"GET", server.url(), {}, {}});
  HttpOptions bearer = quick();
  bearer.bearer_token = "tok";
  HttpClient(bearer).send({"GET", server.url(), {}, {}});
  EXPECT_EQ(server.requests().at(0).header("Authorization"), "Basic YW5uOnMzOmNyZXQ=");  // python3: b64encode(b"ann:s3:cret")
  EXPECT_EQ(server.requests().at(1).header("Authorization"), "Bearer tok");
}

// Credentials must not follow wherever a server points.
TEST(Http, RedirectionsAreNotFollowed) {
  TinyServer elsewhere([](const TinyRequest&) { return tiny_answer(200, "{}"); });
  TinyServer server(
      [&](const TinyRequest&) { return tiny_answer(302, "", "text/plain", "Location: " + elsewhere.url() + "/there\r\n"); });
  const HttpResponse answer = HttpClient(quick()).send({"GET", server.url(), {}, {}});
  EXPECT_EQ(answer.status, 302);
  EXPECT_EQ(answer.location, elsewhere.url() + "/there");
  EXPECT_TRUE(elsewhere.requests().empty());
}

TEST(Http, TroubleIsAnErrorThatNamesTheAddress) {
  struct Case {
    const char* name;
    TinyServer::Handler handler;
  };
  const std::vector<Case> cases = {
      {"hangs", [](const TinyRequest&) { return std::nullopt; }},
      {"closes", [](const TinyRequest&) { return std::string(); }},
      {"drops half way", [](const TinyRequest&) { return std::string("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":"); }},
      {"speaks something else", [](const TinyRequest&) { return std::string("220 mail.example ESMTP\r\n"); }},
  };
  for (const Case& trouble : cases) {
    SCOPED_TRACE(trouble.name);
    TinyServer server(trouble.handler);
    HttpClient client(quick());
    const double seconds = seconds_of([&] {
      const Error error = test::error_of(
          [&] {
            client.send({"POST", server.url() + "/api", "{}", "application/json"});
          },
          ErrorKind::kIo);
      EXPECT_THAT(error.message(), HasSubstr("POST " + server.url() + "/api: "));
    });
    EXPECT_LT(seconds, 3);
  }
  HttpClient client(quick());
  const std::string nobody = "http://127.0.0.1:" + std::to_string(test::free_port());
  EXPECT_THAT(test::error_of([&] { client.send({"GET", nobody, {}, {}}); }, ErrorKind::kIo).message(), HasSubstr(nobody));
  EXPECT_THAT(test::error_of(
                  [&] {
                    client.send({"GET", "ftp://127.0.0.1/", {}, {}});
                  },
                  ErrorKind::kInvalidArgument)
                  .message(),
              HasSubstr("ftp://"));
}

TEST(Http, AnswersAreBounded) {
  TinyServer server([](const TinyRequest&) { return tiny_answer(200, std::string(5000, 'x')); });
  HttpOptions options = quick();
  options.most_response_bytes = 4999;
  EXPECT_THAT(test::error_of(
                  [&] {
                    HttpClient(options).send({"GET", server.url(), {}, {}});
                  },
                  ErrorKind::kIo)
                  .message(),
              HasSubstr("larger than"));
  options.most_response_bytes = 5000;
  EXPECT_EQ(HttpClient(options).send({"GET", server.url(), {}, {}}).body.size(), 5000u);
}

TEST(Http, CancelEndsTheRequestUnderWay) {
  TinyServer server([](const TinyRequest&) { return std::nullopt; });
  HttpOptions options;
  options.timeout = std::chrono::seconds(60);
  HttpClient client(options);
  std::thread canceller([&] {
    while (server.requests().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    client.cancel();
  });
  EXPECT_LT(seconds_of([&] {
              EXPECT_THAT(test::error_of(
                              [&] {
                                client.send({"GET", server.url(), {}, {}});
                              },
                              ErrorKind::kIo)
                              .message(),
                          HasSubstr("cancelled"));
            }),
            5);
  canceller.join();
  EXPECT_THAT(test::error_of(
                  [&] {
                    client.send({"GET", server.url(), {}, {}});
                  },
                  ErrorKind::kIo)
                  .message(),
              HasSubstr("cancelled"));
}

TEST(Http, AddressesAreChecked) {
  EXPECT_EQ(check_http_url("http://localhost:5000/", "w"), "http://localhost:5000");
  EXPECT_EQ(check_http_url("https://host/base/path", "w"), "https://host/base/path");
  for (const char* url : {"", "localhost:5000", "ftp://h", "http://", "http://:5000", "http:///x", "http://h/?a=b", "http://h/#/x",
                          "http://h /", "http://h\n"}) {
    SCOPED_TRACE(url);
    EXPECT_THAT(test::error_of([&] { check_http_url(url, "c.yaml:3:5"); }, ErrorKind::kInvalidArgument).message(),
                AllOf(HasSubstr("c.yaml:3:5"), HasSubstr("expected http://HOST:PORT")));
  }
  // A password is neither stored nor repeated.
  const std::string text = test::message_of([] { check_http_url("https://ann:s3cret@host", "w"); }, ErrorKind::kInvalidArgument);
  EXPECT_THAT(text, AllOf(HasSubstr("password"), Not(HasSubstr("s3cret"))));
}

TEST(Http, EscapesWhatIsNoPlainLetter) { EXPECT_EQ(url_escape("a-Z_0.~/ ä%"), "a-Z_0.~%2F%20%C3%A4%25"); }

}  // namespace
}  // namespace salient
