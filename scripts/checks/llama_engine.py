"""A model in llama.cpp through llama-cpp-python's low-level functions: logits at every position, and its tokenizer."""
import ctypes
import functools

import llama_cpp
import numpy as np

LOG = []


@llama_cpp.llama_log_callback
def keep_log(_level, text, _data):
    LOG.append(text.decode(errors="replace"))


@functools.cache
def start():
    llama_cpp.llama_log_set(keep_log, ctypes.c_void_p())
    llama_cpp.llama_backend_init()


class Engine:
    """A GGUF file in llama.cpp, on the CPU, keys and values in float32, without flash attention."""

    def __init__(self, path, n_ctx=256, threads=1):
        start()
        params = llama_cpp.llama_model_default_params()
        params.use_mmap = False
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp does not load it:\n{''.join(LOG)[-2000:]}")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = n_ctx
        options.type_k = options.type_v = 0  # float32 keys and values
        options.flash_attn_type = 0
        options.n_threads = options.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def decode(self, ids, position):
        """float32 [len(ids), vocabulary] of ids that come after `position` tokens of the cache."""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position + i, 1, 1
            batch.seq_id[i][0] = 0
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_batch_free(batch)
        if status != 0:
            raise SystemExit(f"llama_decode failed: {status}")
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), shape=(len(ids), self.size)).copy()

    def logits(self, ids):
        """float32 [len(ids), vocabulary], from an empty cache."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        return self.decode(ids, 0)

    def greedy(self, ids, count):
        """ids and the `count` likeliest tokens after them, one by one through the cache."""
        ids, logits = list(ids), self.logits(ids)
        for i in range(count):
            ids.append(int(logits[-1].argmax()))
            if i + 1 < count:
                logits = self.decode(ids[-1:], len(ids) - 1)
        return ids

    def encode(self, text):
        data = text.encode()
        room = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), room, len(room), True, True)
        return list(room[:count])
