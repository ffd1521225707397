#include "support/fault_program.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <sstream>
#include <stdexcept>

#include "support/folder_bytes.h"

namespace salient::test {
namespace fs = std::filesystem;
namespace {

constexpr const char* kMostSeconds = "120";

void exchange(int socket, const std::string& request, int32_t& answer) {
  for (size_t done = 0; done < request.size();) {
    const ssize_t count = ::send(socket, request.data() + done, request.size() - done, MSG_NOSIGNAL);
    if (count <= 0) throw std::runtime_error("the program's server has gone");
    done += static_cast<size_t>(count);
  }
  ssize_t count = 0;
  do count = ::recv(socket, &answer, sizeof answer, MSG_WAITALL);
  while (count < 0 && errno == EINTR);
  if (count != sizeof answer) throw std::runtime_error("the program's server has gone");
}

void read_report(const fs::path& file, FaultResult& result) {
  std::istringstream lines(file_bytes(file));
  for (std::string line; std::getline(lines, line);) {
    const size_t space = line.find(' ');
    const std::string word = line.substr(0, space);
    if (word == "fired") {
      result.fired = line.substr(space + 1);
    } else {
      result.counts[word] = std::stoll(line.substr(space + 1));
    }
  }
}

}  // namespace

std::string FaultProgram::missing() {
#ifdef SALIENT_FAULT_LAYER
  return "";
#else
  return "the fault layer is not part of a build with sanitizers";
#endif
}

FaultProgram::FaultProgram() {
#ifdef SALIENT_FAULT_LAYER
  std::string pattern = (fs::temp_directory_path() / "salient_faults_XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make a folder");
  scratch_ = pattern;
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) throw std::runtime_error("cannot make a socket");
  socket_ = ends[0];
  std::vector<std::string> assignments = {"LD_PRELOAD=" SALIENT_FAULT_LAYER, "OMP_NUM_THREADS=1",
                                          "SALIENT_PROGRAM_SERVER=" + std::to_string(ends[1])};
  for (char** entry = environ; *entry != nullptr; ++entry) assignments.emplace_back(*entry);
  std::vector<char*> envp;
  for (std::string& assignment : assignments) envp.push_back(assignment.data());
  envp.push_back(nullptr);
  std::string program = SALIENT_PROGRAM;
  char* argv[] = {program.data(), nullptr};
  server_ = ::fork();
  if (server_ < 0) throw std::runtime_error("cannot fork");
  if (server_ == 0) {
    ::close(ends[0]);
    ::execve(argv[0], argv, envp.data());
    ::_exit(127);
  }
  ::close(ends[1]);
#else
  throw std::runtime_error(missing());
#endif
}

FaultProgram::~FaultProgram() {
  ::close(socket_);  // which ends the server
  while (::waitpid(server_, nullptr, 0) < 0 && errno == EINTR) {
  }
  std::error_code ignored;
  fs::remove_all(scratch_, ignored);
}

FaultResult FaultProgram::run(const FaultCall& call) {
  const fs::path out = scratch_ / "out", err = scratch_ / "err", report = scratch_ / "report";
  for (const fs::path& file : {out, err, report}) fs::remove(file);
  std::string watched;
  for (const fs::path& folder : call.watched) watched += (watched.empty() ? "" : ":") + folder.string();
  std::vector<std::string> texts = {call.folder.string(),
                                    out.string(),
                                    err.string(),
                                    kMostSeconds,
                                    "SALIENT_FAULT_FOLDERS=" + watched,
                                    "SALIENT_FAULT_REPORT=" + report.string()};
  if (!call.fault.kind.empty()) texts.push_back("SALIENT_FAULT=" + call.fault.text());
  texts.emplace_back();
  texts.insert(texts.end(), call.arguments.begin(), call.arguments.end());
  std::string body;
  for (const std::string& text : texts) body += text + '\0';
  const auto length = static_cast<uint32_t>(body.size());
  int32_t status = 0;
  exchange(socket_, std::string(reinterpret_cast<const char*>(&length), sizeof length) + body, status);
  FaultResult result;
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  result.out = file_bytes(out);
  result.err = file_bytes(err);
  read_report(report, result);
  return result;
}

}  // namespace salient::test
