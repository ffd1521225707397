#include "support/browser.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "common/text.h"

namespace salient::test {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{30};

std::string quoted(const std::string& text) { return dump_json(Json(text)); }

std::string decode_base64(const std::string& text) {
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    uint32_t value = 0;
    if (c >= 'A' && c <= 'Z') {
      value = static_cast<uint32_t>(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      value = static_cast<uint32_t>(c - 'a') + 26;
    } else if (c >= '0' && c <= '9') {
      value = static_cast<uint32_t>(c - '0') + 52;
    } else if (c == '+' || c == '/') {
      value = c == '+' ? 62 : 63;
    } else {
      continue;
    }
    bits = (bits << 6) | value;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>((bits >> count) & 0xFF);
    }
  }
  return out;
}

}  // namespace

std::optional<fs::path> Browser::find() {
  if (const char* chosen = std::getenv("SALIENT_CHROMIUM"); chosen != nullptr && *chosen != '\0') return fs::path(chosen);
  const char* path = std::getenv("PATH");
  for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
    for (const std::string& folder : split(path == nullptr ? "" : path, ':')) {
      const fs::path file = fs::path(folder) / name;
      if (!folder.empty() && ::access(file.c_str(), X_OK) == 0) return file;
    }
  }
  return std::nullopt;
}

Browser::Browser(const fs::path& program) {
  std::vector<std::string> words = {program.string(),
                                    "--headless=new",
                                    "--no-sandbox",  // tests run as root in containers
                                    "--disable-gpu",
                                    "--disable-dev-shm-usage",
                                    "--disable-background-networking",
                                    "--disable-component-update",
                                    "--disable-extensions",
                                    "--no-first-run",
                                    "--no-default-browser-check",
                                    "--hide-scrollbars",
                                    "--user-data-dir=" + profile_.path().string(),
                                    "--remote-debugging-pipe",
                                    "about:blank"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int commands[2];
  int answers[2];
  if (::pipe2(commands, O_CLOEXEC) != 0 || ::pipe2(answers, O_CLOEXEC) != 0) throw std::runtime_error("cannot make a pipe");
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  child_ = ::fork();
  if (child_ < 0) throw std::runtime_error("cannot fork");
  if (child_ == 0) {
    ::setpgid(0, 0);  // its helpers end with it
    // Both out of the way of 3 and 4 first.
    const int in = ::fcntl(commands[0], F_DUPFD_CLOEXEC, 10);
    const int out = ::fcntl(answers[1], F_DUPFD_CLOEXEC, 10);
    for (const int standard : {0, 1, 2}) ::dup2(nothing, standard);
    ::dup2(in, 3);
    ::dup2(out, 4);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(commands[0]);
  ::close(answers[1]);
  ::close(nothing);
  to_ = commands[1];
  from_ = answers[0];
  ::signal(SIGPIPE, SIG_IGN);  // a browser that ended is told by write

  const Json target = call("Target.createTarget", {{"url", "about:blank"}});
  session_ =
      call("Target.attachToTarget", {{"targetId", target.at("targetId")}, {"flatten", true}}).at("sessionId").get<std::string>();
  for (const char* domain : {"Page", "Runtime", "Log", "Network"}) call(std::string(domain) + ".enable");
}

Browser::~Browser() {
  ::close(to_);  // the browser ends when its pipe does
  const auto until = Clock::now() + std::chrono::seconds(5);
  int status = 0;
  while (::waitpid(child_, &status, WNOHANG) == 0) {
    if (Clock::now() > until) {
      ::kill(-child_, SIGKILL);
      ::waitpid(child_, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ::close(from_);
}

void Browser::send(const Json& message) {
  const std::string text = dump_json(message) + '\0';
  for (size_t at = 0; at < text.size();) {
    const ssize_t count = ::write(to_, text.data() + at, text.size() - at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw std::runtime_error("the browser has ended");
    at += static_cast<size_t>(count);
  }
}

Json Browser::receive(Clock::time_point until) {
  for (;;) {
    if (const size_t end = buffer_.find('\0'); end != std::string::npos) {
      Json message = Json::parse(buffer_.substr(0, end));
      buffer_.erase(0, end + 1);
      return message;
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd wait{from_, POLLIN, 0};
    if (left <= 0 || ::poll(&wait, 1, static_cast<int>(left)) == 0) throw std::runtime_error("the browser does not answer");
    char part[1 << 16];
    const ssize_t count = ::read(from_, part, sizeof part);
    if (count == 0) throw std::runtime_error("the browser has ended");
    if (count > 0) buffer_.append(part, static_cast<size_t>(count));
  }
}

void Browser::note(const Json& event) {
  const std::string method = event.value("method", "");
  const Json& parameters = event.contains("params") ? event.at("params") : Json::object();
  if (method == "Page.loadEventFired") {
    ++loads_;
  } else if (method == "Runtime.exceptionThrown") {
    complaints_.push_back("exception: " + dump_json(parameters.at("exceptionDetails")));
  } else if (method == "Runtime.consoleAPICalled") {
    const std::string type = parameters.at("type").get<std::string>();
    if (type == "error" || type == "warning" || type == "assert")
      complaints_.push_back(type + ": " + dump_json(parameters.at("args")));
  } else if (method == "Log.entryAdded") {
    const std::string level = parameters.at("entry").at("level").get<std::string>();
    if (level == "error" || level == "warning") complaints_.push_back(level + ": " + dump_json(parameters.at("entry")));
  } else if (method == "Network.requestWillBeSent") {
    const std::string url = parameters.at("request").at("url").get<std::string>();
    if (url != opened_ && !url.starts_with("data:")) requests_.push_back(url);
  }
}

Json Browser::call(const std::string& method, const Json& parameters) {
  const int64_t id = ++last_id_;
  Json message = {{"id", id}, {"method", method}, {"params", parameters}};
  if (!session_.empty()) message["sessionId"] = session_;
  send(message);
  const auto until = Clock::now() + kPatience;
  for (;;) {
    const Json answer = receive(until);
    if (answer.value("id", int64_t{0}) != id) {
      note(answer);
      continue;
    }
    if (answer.contains("error")) throw std::runtime_error(method + ": " + dump_json(answer.at("error")));
    return answer.at("result");
  }
}

void Browser::set_viewport(int width, int height, bool phone) {
  call("Emulation.setDeviceMetricsOverride", {{"width", width}, {"height", height}, {"deviceScaleFactor", 1}, {"mobile", phone}});
}

void Browser::set_color_scheme(const std::string& scheme) {
  call("Emulation.setEmulatedMedia", {{"features", {{{"name", "prefers-color-scheme"}, {"value", scheme}}}}});
}

void Browser::set_print_media(bool print) { call("Emulation.setEmulatedMedia", {{"media", print ? "print" : ""}}); }

void Browser::open(const fs::path& file) {
  opened_ = "file://" + fs::absolute(file).lexically_normal().string();
  const int64_t before = loads_;
  call("Page.navigate", {{"url", opened_}});
  const auto until = Clock::now() + kPatience;
  while (loads_ == before) note(receive(until));
}

Json Browser::evaluate(const std::string& expression) {
  const Json result = call("Runtime.evaluate", {{"expression", expression}, {"returnByValue", true}, {"awaitPromise", true}});
  if (result.contains("exceptionDetails")) throw std::runtime_error(expression + ": " + dump_json(result.at("exceptionDetails")));
  return result.at("result").value("value", Json());
}

bool Browser::wait_until(const std::string& expression) {
  const auto until = Clock::now() + std::chrono::seconds(10);
  while (Clock::now() < until) {
    if (evaluate("Boolean(" + expression + ")") == Json(true)) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

void Browser::click(const std::string& selector) {
  const Json at = evaluate(R"((() => {
    const node = document.querySelector()" +
                           quoted(selector) + R"();
    if (!node) return null;
    node.scrollIntoView({ block: "center", behavior: "instant" });
    const box = node.getBoundingClientRect();
    const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
    const hit = document.elementFromPoint(x, y);
    return { x, y, hit: hit !== null && (node.contains(hit) || hit.contains(node)) };
  })())");
  if (at.is_null()) throw std::runtime_error("nothing to click: " + selector);
  if (at.at("hit") != Json(true)) throw std::runtime_error("hidden below something else: " + selector);
  for (const char* type : {"mousePressed", "mouseReleased"}) {
    call("Input.dispatchMouseEvent", {{"type", type}, {"x", at.at("x")}, {"y", at.at("y")}, {"button", "left"}, {"clickCount", 1}});
  }
}

void Browser::type(const std::string& text) { call("Input.insertText", {{"text", text}}); }

void Browser::press(const std::string& key) {
  const int code = key == "Tab" ? 9 : key == "Enter" ? 13 : key == " " ? 32 : 0;
  Json down = {{"type", "keyDown"}, {"key", key}, {"code", key == " " ? "Space" : key}, {"windowsVirtualKeyCode", code}};
  if (key == "Enter") down["text"] = "\r";
  if (key == " ") down["text"] = " ";
  call("Input.dispatchKeyEvent", down);
  down["type"] = "keyUp";
  down.erase("text");
  call("Input.dispatchKeyEvent", down);
}

std::string Browser::screenshot() {
  return decode_base64(
      call("Page.captureScreenshot", {{"format", "png"}, {"captureBeyondViewport", false}}).at("data").get<std::string>());
}

}  // namespace salient::test
