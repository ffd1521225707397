#include "support/slurm.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace salient::test {
namespace {
namespace fs = std::filesystem;

constexpr std::array kPrograms = {"munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo"};
constexpr const char* kMoreFolders = ":/usr/sbin:/sbin";  // daemons are not on a user's PATH

void extend_path() {
  const char* path = std::getenv("PATH");
  const std::string now = path == nullptr ? "/usr/bin:/bin" : path;
  if (now.find(kMoreFolders) == std::string::npos) ::setenv("PATH", (now + kMoreFolders).c_str(), 1);
}

bool on_path(const std::string& program) {
  std::istringstream folders(std::getenv("PATH"));
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((fs::path(folder) / program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

// A port that nobody has at this moment.
int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  const bool bound = ::bind(socket, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                     ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  ::close(socket);
  if (!bound) throw std::runtime_error("no free port");
  return ::ntohs(address.sin_port);
}

std::string short_host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  const std::string text = name;
  return text.substr(0, text.find('.'));
}

std::string user_name() {
  const passwd* entry = ::getpwuid(::getuid());
  return entry == nullptr ? "root" : entry->pw_name;
}

std::string read_file(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// What a daemon does not daemonize for: its output goes to a file, and it ends with this process.
pid_t spawn(std::vector<std::string> words, const fs::path& log) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("cannot fork");
  if (child > 0) return child;
  ::setsid();
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(1);
  const int nothing = ::open("/dev/null", O_RDONLY);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

template <typename Condition>
bool wait_for(std::chrono::seconds time, Condition&& condition) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return true;
}

}  // namespace

std::optional<std::string> SlurmCluster::missing() {
  extend_path();
  std::string text;
  for (const char* program : kPrograms) {
    if (!on_path(program)) text += (text.empty() ? "" : ", ") + std::string(program);
  }
  if (text.empty()) return std::nullopt;
  return "not installed: " + text + " (Debian's packages slurm-wlm and munge)";
}

SlurmCluster::SlurmCluster(const SlurmSettings& settings) : host_(short_host_name()) {
  extend_path();
  const fs::path root = folder_.path();
  const std::string s = root.string();
  for (const char* name : {"state", "spool", "log", "munge"}) fs::create_directories(root / name);
  for (const fs::path& folder : {root, root / "munge"})
    ::chmod(folder.c_str(), 0711);  // munged wants its socket to be reachable for all
  {
    std::ofstream key(root / "munge/munge.key", std::ios::binary);
    std::random_device random;
    for (int i = 0; i < 1024; ++i) key.put(static_cast<char>(random()));
  }
  ::chmod((root / "munge/munge.key").c_str(), 0400);
  const std::string user = user_name();
  std::ofstream(root / "slurm.conf")
      << "ClusterName=salienttest\nSlurmctldHost=" << host_ << "(127.0.0.1)\nSlurmUser=" << user << "\nSlurmdUser=" << user
      << "\nAuthType=auth/munge\nAuthInfo=socket=" << s << "/munge/munge.socket.2,cred_expire=5\nCredType=cred/munge\n"
      << "MpiDefault=none\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\n"
      << "JobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\nJobCompType=jobcomp/none\n"
      << "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nSchedulerType=sched/backfill\n"
      << "SchedulerParameters=batch_sched_delay=1,sched_interval=1,bf_interval=1,sched_min_interval=1\nSlurmdParameters=config_"
         "overrides\n"
      << "ReturnToService=2\nJobRequeue=1\nMaxArraySize=" << settings.max_array_size << "\nMinJobAge=" << settings.min_job_age
      << "\nKillWait=5\nInactiveLimit=0\nSlurmctldTimeout=30\nSlurmdTimeout=30\nSlurmctldPort=" << free_port()
      << "\nSlurmdPort=" << free_port() << "\nSlurmctldPidFile=" << s << "/slurmctld.pid\nSlurmdPidFile=" << s
      << "/slurmd.pid\nStateSaveLocation=" << s << "/state\nSlurmdSpoolDir=" << s << "/spool\nSlurmctldLogFile=" << s
      << "/log/slurmctld.log\nSlurmdLogFile=" << s << "/log/slurmd.log\nSlurmctldDebug=info\nSlurmdDebug=info\nNodeName=" << host_
      << " NodeAddr=127.0.0.1 CPUs=" << settings.cpus << " RealMemory=1000 State=UNKNOWN\n"
      << "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n";
  ::setenv("SLURM_CONF", (root / "slurm.conf").c_str(), 1);
  start(
      "munged",
      {"munged", "--foreground", "--key-file=" + s + "/munge/munge.key", "--socket=" + s + "/munge/munge.socket.2",
       "--pid-file=" + s + "/munge/munged.pid", "--log-file=" + s + "/munge/munged.log", "--seed-file=" + s + "/munge/munged.seed"},
      munged_);
  if (!wait_for(std::chrono::seconds(20), [&] { return fs::is_socket(root / "munge/munge.socket.2"); }))
    throw std::runtime_error("munged does not start: " + logs());
  start("slurmctld", {"slurmctld", "-D", "-c"}, controller_);
  start("slurmd", {"slurmd", "-D", "-c"}, daemon_);
  wait_until_idle();
}

SlurmCluster::~SlurmCluster() {
  try {
    call({"scancel", "--partition=main"});
    wait_for(std::chrono::seconds(15), [&] { return queue().empty(); });
  } catch (const std::exception&) {
    // The daemons are ended all the same.
  }
  stop(daemon_);
  stop(controller_);
  stop(munged_);
  ::unsetenv("SLURM_CONF");
}

void SlurmCluster::start(const char* name, const std::vector<std::string>& words, pid_t& child) {
  child = spawn(words, folder_.path() / "log" / (std::string(name) + ".out"));
}

void SlurmCluster::stop(pid_t& child) {
  if (child < 0) return;
  ::kill(child, SIGTERM);
  if (!wait_for(std::chrono::seconds(10), [&] { return ::waitpid(child, nullptr, WNOHANG) != 0; })) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  child = -1;
}

std::string SlurmCluster::call(const std::vector<std::string>& words) const {
  const fs::path out = folder_.path() / "call.out";
  std::error_code ignored;
  fs::remove(out, ignored);
  const pid_t child = spawn(words, out);
  int status = 0;
  ::waitpid(child, &status, 0);
  const std::string text = read_file(out);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) throw std::runtime_error(words[0] + " failed: " + text);
  return text;
}

void SlurmCluster::lose_node() const { call({"scontrol", "update", "NodeName=" + host_, "State=DOWN", "Reason=test"}); }

void SlurmCluster::return_node() const {
  try {
    call({"scontrol", "update", "NodeName=" + host_, "State=RESUME"});
  } catch (const std::runtime_error&) {
    // It has come back by itself.
  }
  wait_until_idle();
}

void SlurmCluster::stop_controller() { stop(controller_); }

void SlurmCluster::start_controller() {
  start("slurmctld", {"slurmctld", "-D"}, controller_);
  wait_until_idle();
}

std::string SlurmCluster::queue() const { return call({"squeue", "--noheader", "--array", "--format=%F_%K %T"}); }

int SlurmCluster::arrays_submitted() const {
  const std::string log = read_file(folder_.path() / "log/slurmctld.log");
  int count = 0;
  for (size_t at = log.find("_slurm_rpc_submit_batch_job: JobId="); at != std::string::npos;
       at = log.find("_slurm_rpc_submit_batch_job: JobId=", at + 1))
    ++count;
  return count;
}

void SlurmCluster::wait_until_idle() const {
  const bool ready = wait_for(std::chrono::seconds(30), [&] {
    try {
      const std::string states = call({"sinfo", "--noheader", "--format=%T"});
      return states.starts_with("idle") || states.starts_with("mixed") || states.starts_with("comp") ||
             states.starts_with("allocated");
    } catch (const std::runtime_error&) {
      return false;  // not up yet
    }
  });
  if (!ready) throw std::runtime_error("Slurm does not start: " + logs());
}

std::string SlurmCluster::logs() const {
  std::string text;
  for (const char* name :
       {"munge/munged.log", "log/munged.out", "log/slurmctld.log", "log/slurmctld.out", "log/slurmd.log", "log/slurmd.out"}) {
    const std::string log = read_file(folder_.path() / name);
    if (!log.empty()) text += std::string("\n== ") + name + "\n" + log.substr(log.size() > 2000 ? log.size() - 2000 : 0);
  }
  return text;
}

}  // namespace salient::test
