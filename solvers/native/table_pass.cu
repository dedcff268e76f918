// What is done with tables of losses that lie on a GPU. Given when compiled: K formats, losses of type REAL, sizes of type
// WHOLE, and LINE: how many losses one load brings (16 bytes where rows are whole numbers of those, else one loss).

struct alignas(sizeof(REAL) * LINE) Line {
  REAL loss[LINE];
};

__device__ inline void read_row(const REAL* __restrict__ loss, long long row, REAL* here) {
  const Line* lines = reinterpret_cast<const Line*>(loss + row * K);
#pragma unroll
  for (int at = 0; at < K / LINE; ++at) {
    const Line line = lines[at];
#pragma unroll
    for (int j = 0; j < LINE; ++j) here[at * LINE + j] = line.loss[j];
  }
}

// One visit of a whole table; the words are those of torch_visit.fused_pass, which says the same in torch. Every thread
// takes rows in turn and adds up in the order of its rows, every block adds its threads in one order: sums are the same
// bits every time.
extern "C" __global__ void __launch_bounds__(THREADS) visit(
    const REAL* __restrict__ loss, const WHOLE* __restrict__ size, long long stride, const REAL* __restrict__ price,
    const REAL* __restrict__ need, const long long* __restrict__ rate, long long n, unsigned char* __restrict__ choice,
    long long* __restrict__ rest, unsigned long long* __restrict__ count, long long room, long long* __restrict__ costs,
    double* __restrict__ losses) {
  // need[x][j]: least loss_j - loss_x per unit of size at which x beats j; a column more, so that banks differ.
  __shared__ REAL needs[K][K + 1];
  __shared__ long long rates[K], some_costs[THREADS];
  __shared__ double some_losses[THREADS];
  for (int at = threadIdx.x; at < K * K; at += THREADS) needs[at / K][at % K] = need[at];
  for (int at = threadIdx.x; at < K; at += THREADS) rates[at] = rate[at];
  REAL prices[K];
#pragma unroll
  for (int j = 0; j < K; ++j) prices[j] = price[j];
  __syncthreads();

  long long cost = 0;
  double total = 0;
  const long long step = (long long)gridDim.x * THREADS;
  for (long long row = (long long)blockIdx.x * THREADS + threadIdx.x; row < n; row += step) {
    REAL here[K];
    read_row(loss, row, here);
    const WHOLE weight = size[row * stride];
    const REAL scale = (REAL)weight;
    int best = 0;
    REAL value = here[0] + scale * prices[0], chosen = here[0];
#pragma unroll
    for (int j = 1; j < K; ++j) {
      const REAL other = here[j] + scale * prices[j];
      const bool less = other < value;
      value = less ? other : value;
      chosen = less ? here[j] : chosen;
      best = less ? j : best;
    }
    bool sure = true;
#pragma unroll
    for (int j = 0; j < K; ++j) sure = sure && here[j] - chosen >= needs[best][j] * scale;
    choice[row] = (unsigned char)best;
    if (sure) {
      cost += (long long)weight * rates[best];
      total += (double)chosen;
    } else {
      const unsigned long long at = atomicAdd(count, 1ULL);
      if (at < (unsigned long long)room) rest[at] = row;
    }
  }

  some_costs[threadIdx.x] = cost;
  some_losses[threadIdx.x] = total;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      some_costs[threadIdx.x] += some_costs[threadIdx.x + half];
      some_losses[threadIdx.x] += some_losses[threadIdx.x + half];
    }
  }
  if (threadIdx.x == 0) {
    costs[blockIdx.x] = some_costs[0];
    losses[blockIdx.x] = some_losses[0];
  }
}

// What is spent at each of 32 multipliers (torch_bracket.spent says it in torch): a lane of a warp has one of them, and
// all lanes look at the same row. prices: [32][K] cost of a unit of size, in losses. found: 32 sums, zero before; whole
// numbers, so their order does not matter.
extern "C" __global__ void __launch_bounds__(THREADS) spend(
    const REAL* __restrict__ loss, const WHOLE* __restrict__ size, long long stride, const REAL* __restrict__ prices,
    const long long* __restrict__ rate, long long n, unsigned long long* __restrict__ found) {
  constexpr int LANES = 32;
  __shared__ unsigned long long sums[LANES];
  __shared__ long long rates[K];
  const int lane = threadIdx.x % LANES;
  if (threadIdx.x < LANES) sums[threadIdx.x] = 0;
  for (int at = threadIdx.x; at < K; at += THREADS) rates[at] = rate[at];
  REAL price[K];
#pragma unroll
  for (int j = 0; j < K; ++j) price[j] = prices[lane * K + j];
  __syncthreads();

  long long spent = 0;
  const long long step = (long long)gridDim.x * (THREADS / LANES);
  for (long long row = ((long long)blockIdx.x * THREADS + threadIdx.x) / LANES; row < n; row += step) {
    REAL here[K];
    read_row(loss, row, here);
    const WHOLE weight = size[row * stride];
    const REAL scale = (REAL)weight;
    int best = 0;
    REAL value = here[0] + scale * price[0];
#pragma unroll
    for (int j = 1; j < K; ++j) {
      const REAL other = here[j] + scale * price[j];
      best = other < value ? j : best;
      value = other < value ? other : value;
    }
    spent += (long long)weight * rates[best];
  }
  atomicAdd(&sums[lane], (unsigned long long)spent);
  __syncthreads();
  if (threadIdx.x < LANES) atomicAdd(&found[threadIdx.x], sums[threadIdx.x]);
}
