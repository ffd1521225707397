#include "pipeline/launcher/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string_view>

#include "common/error.h"
#include "common/file.h"

namespace salient::pipeline {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int value = -1) : value_(value) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  void reset(int value = -1) {
    if (value_ >= 0) ::close(value_);
    value_ = value;
  }

 private:
  int value_;
};

struct Pipe {
  Descriptor read_end, write_end;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) fail(ErrorKind::kIo, "cannot make a pipe: {}", std::strerror(errno));
    read_end.reset(ends[0]);
    write_end.reset(ends[1]);
  }
};

std::vector<std::string> environment_without(const std::vector<std::string>& prefixes) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (std::ranges::none_of(prefixes, [&](const std::string& prefix) { return text.starts_with(prefix); }))
      variables.emplace_back(text);
  }
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) fail(ErrorKind::kIo, "cannot wait for a child process: {}", std::strerror(errno));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Until both streams are closed.
void read_streams(std::array<std::pair<Pipe*, std::string*>, 2> streams) {
  std::array<pollfd, 2> waits{};
  for (size_t i = 0; i < 2; ++i) waits[i] = {streams[i].first->read_end.get(), POLLIN, 0};
  while (waits[0].fd >= 0 || waits[1].fd >= 0) {
    if (::poll(waits.data(), 2, -1) < 0 && errno != EINTR)
      fail(ErrorKind::kIo, "cannot read from a child process: {}", std::strerror(errno));
    for (size_t i = 0; i < 2; ++i) {
      if (waits[i].fd < 0 || waits[i].revents == 0) continue;
      char buffer[1 << 14];
      const ssize_t count = ::read(waits[i].fd, buffer, sizeof buffer);
      if (count > 0) streams[i].second->append(buffer, static_cast<size_t>(count));
      if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) waits[i].fd = -1;
    }
  }
}

}  // namespace

ChildResult run_child(const std::vector<std::string>& command, const ChildOptions& options) {
  // Everything that allocates comes before fork: libtorch may have threads in this process.
  std::vector<std::string> words = command;
  std::vector<std::string> variables = environment_without(options.unset);
  const std::vector<char*> argv = pointers(words);
  const std::vector<char*> envp = pointers(variables);
  const std::string folder = options.folder.string();
  Pipe out, err, failure;
  const Descriptor nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  Descriptor file;
  if (!options.out_file.empty()) {
    file.reset(::open(options.out_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (file.get() < 0) fail_errno(options.out_file, "write", errno);
  }
  const pid_t child = ::fork();
  if (child < 0) fail(ErrorKind::kIo, "cannot start {}: {}", command.at(0), std::strerror(errno));
  if (child == 0) {
    ::setpgid(0, 0);
    ::dup2(nothing.get(), STDIN_FILENO);
    ::dup2(file.get() >= 0 ? file.get() : out.write_end.get(), STDOUT_FILENO);
    ::dup2(err.write_end.get(), STDERR_FILENO);
    if (options.keep_descriptor >= 0) ::fcntl(options.keep_descriptor, F_SETFD, 0);
    if (folder.empty() || ::chdir(folder.c_str()) == 0) ::execvpe(argv[0], argv.data(), envp.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t told = ::write(failure.write_end.get(), &error, sizeof error);
    ::_exit(127);
  }
  for (Pipe* pipe : {&out, &err, &failure}) pipe->write_end.reset();
  ChildResult result;
  read_streams({std::pair(&out, &result.out), std::pair(&err, &result.err)});
  int error = 0;
  const bool not_started = ::read(failure.read_end.get(), &error, sizeof error) == static_cast<ssize_t>(sizeof error);
  result.exit_code = wait_for(child);
  if (!not_started) return result;
  if (error == ENOENT) fail(ErrorKind::kNotFound, "{}: there is no such program on the PATH", command.at(0));
  fail(ErrorKind::kIo, "cannot start {}: {}", command.at(0), std::strerror(error));
}

std::string shell_quote(const std::string& word) {
  const bool plain = !word.empty() && std::ranges::all_of(word, [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("_-+=./:,@%").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string shell_command(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + shell_quote(word);
  return text;
}

}  // namespace salient::pipeline
