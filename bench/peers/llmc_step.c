/* Paced AdamW steps of GPT-2 124M in f32 by llm.c's program for processors, for compare_steps.py llmc=PATH.
 *
 *   gcc -Ofast -march=native -fopenmp -DOMP -I LLM_C -o llmc_step bench/peers/llmc_step.c -lm
 *   llmc_step [batch=4] [length=64]
 *
 * LLM_C is the folder of llm.c: its train_gpt2.c is included as it is, without its main, as its own test_gpt2.c does;
 * the flags are those of its Makefile. Weights and tokens are random, as a step's time does not depend on them. A step is
 * what its main runs: forward, zero_grad, backward, update. OMP_NUM_THREADS sets the threads. One step is taken first;
 * then prints "ready", and answers each line of standard input with one step's milliseconds and the peak resident MiB.
 * At the end the loss goes to standard error, to show that it trained.
 */
#define TESTING
#include "train_gpt2.c"

#include <sys/resource.h>

static unsigned next_random(unsigned long long* state) {  // Knuth's MMIX constants
  *state = *state * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(*state >> 33);
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static double step(GPT2* model, int* tokens, int batch, int length, int number) {
  const double begin = now_ms();
  gpt2_forward(model, tokens, tokens + 1, batch, length);
  gpt2_zero_grad(model);
  gpt2_backward(model);
  gpt2_update(model, 1e-4f, 0.9f, 0.999f, 1e-8f, 0.0f, number);
  return now_ms() - begin;
}

int main(int argc, char** argv) {
  int batch = 4, length = 64;
  for (int i = 1; i < argc; ++i) {
    if (sscanf(argv[i], "batch=%d", &batch) != 1 && sscanf(argv[i], "length=%d", &length) != 1) {
      fprintf(stderr, "llmc_step: unknown argument %s; known are batch, length\n", argv[i]);
      return 2;
    }
  }
  if (batch < 1 || batch > 1024 || length < 1 || length > 1024) {
    fprintf(stderr, "llmc_step: batch and length must be from 1 to 1024\n");
    return 2;
  }
  GPT2 model;
  memset(&model, 0, sizeof model);
  model.config.max_seq_len = 1024;
  model.config.vocab_size = 50257;
  model.config.padded_vocab_size = 50304;
  model.config.num_layers = model.config.num_heads = 12;
  model.config.channels = 768;
  fill_in_parameter_sizes(model.param_sizes, model.config);
  for (int i = 0; i < NUM_PARAMETER_TENSORS; ++i) model.num_parameters += model.param_sizes[i];
  model.params_memory = malloc_and_point_parameters(&model.params, model.param_sizes);
  unsigned long long state = 1;
  for (size_t i = 0; i < model.num_parameters; ++i)
    model.params_memory[i] = ((float)next_random(&state) / 1073741824.0f - 1.0f) * 0.035f;  // a deviation of 0.02
  float* scales[] = {model.params.ln1w, model.params.ln2w, model.params.lnfw};
  const size_t sizes[] = {model.param_sizes[2], model.param_sizes[8], model.param_sizes[14]};
  for (int n = 0; n < 3; ++n)
    for (size_t i = 0; i < sizes[n]; ++i) scales[n][i] = 1.0f;
  int* tokens = (int*)malloc((size_t)(batch * length + 1) * sizeof(int));
  for (int i = 0; i <= batch * length; ++i) tokens[i] = (int)(next_random(&state) % 50257);

  int number = 1;
  step(&model, tokens, batch, length, number++);
  printf("ready\n");
  fflush(stdout);
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    const double ms = step(&model, tokens, batch, length, number++);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%.3f %.0f\n", ms, (double)usage.ru_maxrss / 1024);
    fflush(stdout);
  }
  fprintf(stderr, "llm.c: loss %.4f after %d steps\n", model.mean_loss, number - 1);
  return 0;
}
