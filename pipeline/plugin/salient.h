/* The C interface of libsalient: the same work as the program `salient`, inside another program.
 *
 *   salient_config config = {.struct_size = sizeof(config)};
 *   config.path = "configs/demo.yaml";
 *   char* result = NULL;
 *   if (salient_run(&config, NULL, &result) != SALIENT_OK) fprintf(stderr, "%s\n", salient_last_error()->message);
 *   salient_free(result);
 *
 * Rules
 *   Texts      UTF-8, ended by a zero byte. What is passed in is the caller's and is copied where it is needed longer. What comes
 * back through a `char**` is the caller's from then on and goes to salient_free(), never to free(). What comes back as `const
 * char*` is the library's; each function says until when it holds. Errors     Functions return SALIENT_OK or the kind of the error;
 * the rest is in salient_last_error(). No C++ exception leaves the library, none may be thrown out of a callback, and longjmp() out
 * of one is not allowed. Threads    Every function may be called from any thread. Work (salient_run, salient_command) runs in the
 * calling thread and in libtorch's; one piece of work runs in a process at a time, further calls wait for their turn. A callback is
 * called in the thread that called for the work; it may call salient_cancel(), not salient_run() or salient_command(), which fail
 * then. The errors are each thread's own. Process    Work reads and writes files relative to the working directory, and takes as
 * many threads as libtorch has unless the configuration says otherwise. libtorch's settings that it depends on (threads, default
 * dtype, precision of matrix products, inference mode, autocast) are put back afterwards. Work that was killed together with its
 * process goes on with the same call, as the program does. libtorch   The library shares a libtorch that the process has loaded
 * under the same file name, which therefore has to be the build that salient_torch_version() names. With any other one, run the
 * work in a process of its own. Versions   Structs that are passed in begin with their size as the caller knows it. Later versions
 * add members at the end, whose zero means what was done before they were there, and functions; they change none that are there as
 * long as SALIENT_ABI_VERSION, the number behind libsalient.so, stays.
 */
#ifndef SALIENT_H
#define SALIENT_H

#include <stddef.h>
#include <stdint.h>

#define SALIENT_ABI_VERSION 1

#if defined(__GNUC__)
#define SALIENT_API __attribute__((visibility("default")))
#else
#define SALIENT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The exit codes of the program. */
enum {
  SALIENT_OK = 0,
  SALIENT_INTERNAL = 1,         /* a defect of the library */
  SALIENT_INVALID_ARGUMENT = 2, /* the caller asked for something impossible */
  SALIENT_NOT_FOUND = 3,        /* a file, model, tensor or row is not there */
  SALIENT_CORRUPTION = 4,       /* data that is there but broken */
  SALIENT_UNSUPPORTED = 5,      /* well-formed, but not implemented */
  SALIENT_IO = 6,               /* the operating system refused, or memory ran out */
  SALIENT_CHECK_FAILED = 7,     /* the work was done, but its result misses a bound */
  SALIENT_CANCELLED = 8         /* stopped by salient_cancel() */
};

/* "0.1.0", and the ABI version of the library that was found, to be compared with SALIENT_ABI_VERSION. Hold for ever. */
SALIENT_API const char* salient_version(void);
SALIENT_API int32_t salient_abi_version(void);
/* The libtorch that this library was built with, and the commit it was made from: "2.13.0+cpu cf30153c4c13...". Holds for ever. */
SALIENT_API const char* salient_torch_version(void);

/* Stops work from another thread. Made before the work, freed after it. */
typedef struct salient_cancellation salient_cancellation;
/* NULL when memory ran out. */
SALIENT_API salient_cancellation* salient_cancellation_new(void);
/* Asks work to stop at its next safe point: after the batch, linear or file that it is at, within seconds for models of usual
 * sizes. What was finished is kept, and the same call goes on from there. Safe in any thread and in a signal handler. Asked for
 * once, it holds for all work that is given this object. */
SALIENT_API void salient_cancel(salient_cancellation* cancellation);
/* Not while work runs that was given it. NULL does nothing. */
SALIENT_API void salient_cancellation_free(salient_cancellation* cancellation);

/* What work tells while it runs. All may be zero. */
typedef struct salient_callbacks {
  size_t struct_size; /* sizeof(salient_callbacks) */
  void* user;         /* handed to the callbacks */
  /* Steps done of a part of the work: label "quantize", unit "blocks". A new label or total begins a new part; done may begin above
   * 0 when work goes on. Texts hold during the call. */
  void (*progress)(void* user, const char* label, const char* unit, int64_t done, int64_t total);
  /* One line, without its end, that the user should see. */
  void (*message)(void* user, const char* line);
  salient_cancellation* cancellation; /* asked between the steps; NULL: cannot be stopped */
} salient_callbacks;

/* What salient_run() runs. Exactly one of `path` and `text`. */
typedef struct salient_config {
  size_t struct_size;           /* sizeof(salient_config) */
  const char* path;             /* a YAML file */
  const char* text;             /* or the YAML (JSON is YAML) itself */
  const char* name;             /* the run's name where the configuration has none; NULL: the file's name, "run" for a text */
  const char* const* overrides; /* "quantization.group_size=64", as --set of the program */
  size_t override_count;
} salient_config;

/* The whole chain of a run configuration, as `salient run`: calibrate, quantize, store, detect, evaluate. Every key:
 * pipeline/run_config.h. `result`, which may be NULL, gets what `salient run --json` prints, also when SALIENT_CHECK_FAILED is
 * returned, else NULL. `callbacks` may be NULL. */
SALIENT_API int32_t salient_run(const salient_config* config, const salient_callbacks* callbacks, char** result);

/* One call of the program: `words` without its name, such as {"quantize", "--model", "models/demo", ..., "--json"}. `output`, which
 * may be NULL, gets what would go to standard output, also with an error; never NULL but when memory ran out. What would go to
 * standard error goes to the message callback. */
SALIENT_API int32_t salient_command(const char* const* words, size_t count, const salient_callbacks* callbacks, char** output);

typedef struct salient_error {
  int32_t kind;          /* SALIENT_OK when this thread's last call succeeded */
  const char* kind_name; /* "invalid argument" */
  const char* code;      /* stable and searchable, such as "OUT_OF_MEMORY"; often "" */
  const char* message;   /* where, what was found, what was expected */
  const char* hint;      /* what to do about it; often "" */
} salient_error;

/* Of this thread's last salient_run() or salient_command(). Never NULL; holds until the thread's next such call. */
SALIENT_API const salient_error* salient_last_error(void);

/* Of texts that came through a `char**`. NULL does nothing. */
SALIENT_API void salient_free(char* text);

#ifdef __cplusplus
}
#endif

#endif
