/* libsalient through its C interface, compiled as C: errors, callbacks, cancelling from a callback and from another thread, what is
 * exported. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "salient.h"

static int failures = 0;

#define EXPECT(condition)                                                                           \
  do {                                                                                              \
    if (!(condition)) {                                                                             \
      ++failures;                                                                                   \
      printf("%s:%d: expected %s\n", __FILE__, __LINE__, #condition);                               \
      printf("  last error: [%s] %s\n", salient_last_error()->code, salient_last_error()->message); \
    }                                                                                               \
  } while (0)

static int contains(const char* text, const char* part) { return text != NULL && strstr(text, part) != NULL; }

/* What callbacks have seen, and what they do. */
typedef struct {
  int64_t quantize_calls;
  int64_t first_done;
  int64_t last_done;
  int64_t total;
  int messages;
  int resumed;       /* a line said that blocks are taken over */
  int64_t cancel_at; /* blocks; 0 = never */
  salient_cancellation* cancellation;
  pthread_barrier_t* tell_another; /* met when block `cancel_at` is done */
  int32_t inner_status;            /* of a call out of the callback */
} Seen;

static void on_progress(void* user, const char* label, const char* unit, int64_t done, int64_t total) {
  Seen* seen = user;
  if (strcmp(label, "quantize") != 0) return;
  EXPECT(strcmp(unit, "blocks") == 0);
  if (seen->quantize_calls++ == 0) seen->first_done = done;
  seen->last_done = done;
  seen->total = total;
  if (seen->cancel_at == 0 || done != seen->cancel_at) return;
  if (seen->tell_another != NULL) {
    pthread_barrier_wait(seen->tell_another); /* the other thread cancels */
    pthread_barrier_wait(seen->tell_another);
  } else {
    const char* words[] = {"--version"};
    seen->inner_status = salient_command(words, 1, NULL, NULL);
    salient_cancel(seen->cancellation);
  }
}

static void on_message(void* user, const char* line) {
  Seen* seen = user;
  ++seen->messages;
  EXPECT(strchr(line, '\n') == NULL);
  if (contains(line, "going on at block")) seen->resumed = 1;
}

static const char* const kConfig = "model: {path: " SALIENT_SOURCE_DIR
                                   "/models/demo}\n"
                                   "calibration: {samples: 12}\n"
                                   "quantization: {n_grid: 4, max_shard_size: 1MB}\n"
                                   "evaluation: {throughput: false, tasks: [{name: arc, file: " SALIENT_SOURCE_DIR
                                   "/models/demo/data/arc_test.jsonl, limit: 8}]}\n";

/* The demo below `folder`, and where the artifact is: the caller's. */
static int32_t run_demo(const char* folder, Seen* seen, char** result) {
  char output[512];
  char store[512];
  snprintf(output, sizeof(output), "output.folder=%s/artifacts", folder);
  snprintf(store, sizeof(store), "output.store=%s/salient.db", folder);
  const char* const overrides[] = {output, store};
  salient_config config = {.struct_size = sizeof(config)};
  config.text = kConfig;
  config.overrides = overrides;
  config.override_count = 2;
  salient_callbacks callbacks = {.struct_size = sizeof(callbacks)};
  callbacks.user = seen;
  callbacks.progress = on_progress;
  callbacks.message = on_message;
  callbacks.cancellation = seen->cancellation;
  return salient_run(&config, &callbacks, result);
}

static void test_versions(void) {
  EXPECT(salient_abi_version() == SALIENT_ABI_VERSION);
  EXPECT(strlen(salient_version()) >= 5);
  EXPECT(strchr(salient_torch_version(), '.') != NULL);
  EXPECT(salient_last_error()->kind == SALIENT_OK);
}

static void* errors_of_another_thread(void* nothing) {
  (void)nothing;
  EXPECT(salient_last_error()->kind == SALIENT_OK);
  EXPECT(strcmp(salient_last_error()->message, "") == 0);
  return NULL;
}

static void test_errors(void) {
  char* result = (char*)1;
  EXPECT(salient_run(NULL, NULL, &result) == SALIENT_INVALID_ARGUMENT);
  EXPECT(result == NULL);

  salient_config config = {.struct_size = sizeof(config)};
  EXPECT(salient_run(&config, NULL, NULL) == SALIENT_INVALID_ARGUMENT);
  EXPECT(contains(salient_last_error()->message, "neither path nor text"));
  config.text = kConfig;
  config.path = "run.yaml";
  EXPECT(salient_run(&config, NULL, NULL) == SALIENT_INVALID_ARGUMENT);
  EXPECT(contains(salient_last_error()->message, "both"));

  config.path = NULL;
  config.struct_size = 0;
  EXPECT(salient_run(&config, NULL, NULL) == SALIENT_INVALID_ARGUMENT);
  EXPECT(contains(salient_last_error()->message, "struct_size"));
  /* A caller that was compiled when the struct ended with `text` has no overrides, whatever lies behind it. */
  config.struct_size = offsetof(salient_config, name);
  config.text = "model: {path: nowhere}";
  config.override_count = 7;
  EXPECT(salient_run(&config, NULL, NULL) == SALIENT_NOT_FOUND);
  config.struct_size = sizeof(config);
  EXPECT(salient_run(&config, NULL, NULL) == SALIENT_INVALID_ARGUMENT);
  EXPECT(contains(salient_last_error()->message, "overrides"));
  config.override_count = 0;

  config.text = "model: {path: nowhere}\nquantisation: {bits: 4}\n";
  EXPECT(salient_run(&config, NULL, NULL) == SALIENT_INVALID_ARGUMENT);
  EXPECT(contains(salient_last_error()->message, "quantisation"));
  EXPECT(contains(salient_last_error()->message, "quantization")); /* the nearest key */
  EXPECT(strcmp(salient_last_error()->kind_name, "invalid argument") == 0);

  const char* words[] = {"quantise", "--help"};
  char* output = NULL;
  EXPECT(salient_command(words, 2, NULL, &output) == SALIENT_INVALID_ARGUMENT);
  EXPECT(output != NULL && *output == '\0');
  EXPECT(contains(salient_last_error()->hint, "--help"));
  salient_free(output);
  EXPECT(salient_command(words, 0, NULL, NULL) == SALIENT_INVALID_ARGUMENT);
  EXPECT(salient_command(NULL, 1, NULL, NULL) == SALIENT_INVALID_ARGUMENT);

  pthread_t thread;
  pthread_create(&thread, NULL, errors_of_another_thread, NULL);
  pthread_join(thread, NULL);
  EXPECT(salient_last_error()->kind == SALIENT_INVALID_ARGUMENT);
  salient_free(NULL);
  salient_cancellation_free(NULL);
}

static void test_command(void) {
  const char* words[] = {"inspect", SALIENT_SOURCE_DIR "/models/demo", "--json"};
  char* output = NULL;
  EXPECT(salient_command(words, 3, NULL, &output) == SALIENT_OK);
  EXPECT(output != NULL && output[0] == '{');
  EXPECT(contains(output, "\"parameters\": 4197120"));
  EXPECT(salient_last_error()->kind == SALIENT_OK);
  salient_free(output);
}

static void* cancel_when_told(void* user) {
  Seen* seen = user;
  pthread_barrier_wait(seen->tell_another);
  salient_cancel(seen->cancellation);
  pthread_barrier_wait(seen->tell_another);
  return NULL;
}

static int same_files(const char* first, const char* second) {
  char command[2048];
  /* The card and the metadata have the figures of evaluations and times in them. */
  snprintf(command, sizeof(command),
           "diff -rq --exclude README.md --exclude quantization_metadata.json '%s/artifacts' '%s/artifacts' | grep -v calibration",
           first, second);
  return system(command) != 0; /* grep found no line */
}

static void test_run_and_cancel(const char* folder) {
  char undisturbed[256];
  char stopped[256];
  snprintf(undisturbed, sizeof(undisturbed), "%s/undisturbed", folder);
  snprintf(stopped, sizeof(stopped), "%s/stopped", folder);
  mkdir(undisturbed, 0777);
  mkdir(stopped, 0777);

  char* result = NULL;
  Seen whole = {0};
  EXPECT(run_demo(undisturbed, &whole, &result) == SALIENT_OK);
  EXPECT(contains(result, "\"artifact\""));
  EXPECT(contains(result, "arc"));
  EXPECT(whole.total > 1 && whole.last_done == whole.total && whole.quantize_calls == whole.total + 1);
  EXPECT(whole.messages > 0);
  salient_free(result);

  /* Cancelled by a callback: nothing under the artifact's name, and no result. */
  Seen first = {0};
  first.cancellation = salient_cancellation_new();
  first.cancel_at = 1;
  EXPECT(run_demo(stopped, &first, &result) == SALIENT_CANCELLED);
  EXPECT(result == NULL);
  EXPECT(strcmp(salient_last_error()->code, "CANCELLED") == 0);
  EXPECT(first.last_done == 1);
  EXPECT(first.inner_status == SALIENT_INVALID_ARGUMENT);
  /* For good: the next work under it does not begin. */
  first.quantize_calls = 0;
  EXPECT(run_demo(stopped, &first, &result) == SALIENT_CANCELLED);
  EXPECT(first.quantize_calls == 0);
  salient_cancellation_free(first.cancellation);

  /* Goes on where it was, and is cancelled by another thread. */
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, NULL, 2);
  Seen second = {0};
  second.cancellation = salient_cancellation_new();
  second.cancel_at = 2;
  second.tell_another = &barrier;
  pthread_t thread;
  pthread_create(&thread, NULL, cancel_when_told, &second);
  EXPECT(run_demo(stopped, &second, &result) == SALIENT_CANCELLED);
  pthread_join(thread, NULL);
  EXPECT(second.first_done == 1 && second.last_done == 2);
  EXPECT(second.resumed);
  salient_cancellation_free(second.cancellation);
  pthread_barrier_destroy(&barrier);

  Seen last = {0};
  EXPECT(run_demo(stopped, &last, &result) == SALIENT_OK);
  EXPECT(last.first_done == 2 && last.last_done == last.total);
  EXPECT(result != NULL);
  salient_free(result);
  EXPECT(same_files(undisturbed, stopped));
}

/* Nothing but the interface is visible: a process may hold other code of the same names. */
static void test_exports(void) {
  FILE* symbols = popen("nm -D --defined-only " SALIENT_LIBRARY_FILE, "r");
  char line[4096];
  int found = 0;
  while (symbols != NULL && fgets(line, sizeof(line), symbols) != NULL) {
    const char* name = strrchr(line, ' ');
    if (name == NULL || strncmp(name, " SALIENT_1", 10) == 0) continue;
    if (strncmp(name, " salient_", 9) != 0) {
      ++failures;
      printf("exported: %s", line);
    }
    ++found;
  }
  EXPECT(symbols != NULL && pclose(symbols) == 0);
  EXPECT(found == 10);
}

int main(void) {
  char folder[] = "/tmp/salient_c_XXXXXX";
  if (mkdtemp(folder) == NULL) return 2;
  test_versions();
  test_errors();
  test_command();
  test_run_and_cancel(folder);
  test_exports();
  char command[256];
  snprintf(command, sizeof(command), "rm -rf '%s'", folder);
  if (system(command) != 0) ++failures;
  printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
