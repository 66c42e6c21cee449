// The backward for Ampere and later: configuration of an instance, its kernel and launch.
//
// After FlashAttention-2 (Dao, 2023): a block of threads holds kBlockN keys of one query head,
// makes their dK and dV, and adds its share to dQ. Scores are computed transposed, keys x queries,
// so that probabilities and their gradients are operands of the next product as they leave the last
// one.
#pragma once

#include "attend.h"

namespace flash_attn::cuda::sm80 {

// kBlockM queries x kBlockN keys, 16 keys for a warp. With more warps than that, kWarps * 16 /
// kBlockN of them share keys: they compute the same scores, and each a part of dK's and dV's
// columns.
template <int kBlockM_, int kBlockN_, int kWarps_>
struct BackwardTile {
  static constexpr int kBlockM = kBlockM_, kBlockN = kBlockN_, kWarps = kWarps_;
  static_assert(kBlockM % 32 == 0 && kBlockN % 16 == 0 && kWarps % (kBlockN / 16) == 0);
};

struct BackwardFeatures {
  bool varlen = false, masked = false, softcap = false, alibi = false, dropout = false;
  bool deterministic = false;
};

template <class Element_, class Tile, int kHeadDim_, BackwardFeatures kFeatures_>
struct Backward {
  using Element = Element_;
  static constexpr BackwardFeatures kFeatures = kFeatures_;
  static constexpr int kBlockM = Tile::kBlockM, kBlockN = Tile::kBlockN, kHeadDim = kHeadDim_;
  static constexpr int kThreads = Tile::kWarps * kWarpThreads;
  static_assert(kBlockM <= kThreads, "a thread copies the log-sum-exp of one query");
  static constexpr int kWarpsN = kBlockN / 16, kWarpsD = Tile::kWarps / kWarpsN;
  static constexpr int kWarpsM = kBlockM / 16 < Tile::kWarps ? kBlockM / 16 : Tile::kWarps;
  static constexpr int kKeyThreads = kWarpsN * kWarpThreads;

  using Queries = SharedTile<kBlockM, kHeadDim>;
  using Keys = SharedTile<kBlockN, kHeadDim>;
  using Scores = SharedTile<kBlockN, kBlockM>;
  using QueryThreads = TileThreads<kBlockM, kHeadDim, kThreads>;
  using KeyThreads = TileThreads<kBlockN, kHeadDim, kThreads>;
  using ScoreMma = Mma<Element, kWarpsN>;                          // keys x queries
  using KeyMma = Mma<Element, kWarpsN, kWarpsD>;                   // dK, dV
  using QueryMma = Mma<Element, kWarpsM, Tile::kWarps / kWarpsM>;  // dQ
  using ScorePositions = ThreadPositions<kWarpsN>;
  using QueryPositions = ThreadPositions<kWarpsM, Tile::kWarps / kWarpsM>;
  using KeyAccumulator =
      decltype(partition_fragment_C(KeyMma{}, Shape<Int<kBlockN>, Int<kHeadDim>>{}));

  struct Shared {
    alignas(128) Element k[Keys::kSize];  // and dk
    alignas(128) Element v[Keys::kSize];  // and dv
    alignas(128) Element q[Queries::kSize];
    alignas(128) Element dout[Queries::kSize];
    alignas(128) Element dscores[Scores::kSize];
    float lse[kBlockM], d[kBlockM];
    DropoutTile<kBlockM, kBlockN, kThreads> dropout;
  };
  static constexpr int kSharedBytes = sizeof(Shared);
};

// Start to copy a float for each of kCount rows from first_row on; 0 from num_rows on.
template <int kCount>
__device__ void load_row_floats(float* target, const float* source, int first_row, int num_rows,
                                int thread) {
  if (thread >= kCount) return;
  const bool valid = first_row + thread < num_rows;
  SM80_CP_ASYNC_CACHEALWAYS_ZFILL<uint32_t>::copy(
      *reinterpret_cast<const uint32_t*>(source + (valid ? first_row + thread : 0)),
      *reinterpret_cast<uint32_t*>(target + thread), valid);
}

// What a block of threads works on: tensors of its head, and its sequence.
template <class Element>
struct BackwardProblem {
  DenseRows<const Element> q, k, v, dout;
  DenseRows<Element> dk, dv;
  DenseRows<float> dq;
  const float *lse, *d;
  Sequence sequence;
  int head, batch, first_key;
};

// The probabilities of a tile and their gradients, both (keys, queries): `probs` holds scores and
// becomes what multiplies dout, `dprobs` the gradient of scores less softmax_scale.
template <class Instance, class Probs, class Problem>
__device__ void differentiate(Probs& probs, Probs& dprobs, typename Instance::Shared& shared,
                              const BackwardParams& p, const Problem& problem, int first_query,
                              float slope) {
  constexpr auto kFeatures = Instance::kFeatures;
  const typename Instance::ScorePositions positions(remade(threadIdx.x) % Instance::kKeyThreads);
  const Band<kFeatures.masked> band{problem.sequence.seqlen_q, problem.sequence.seqlen_k,
                                    p.window_left, p.window_right};
  const Logits<kFeatures.softcap, kFeatures.alibi> logits(p);
  const auto key = [&](int i) { return problem.first_key + positions.row(i); };
  const auto query = [&](int j) { return first_query + positions.column(j); };

  auto rows = rows_and_columns(probs);
  auto drows = rows_and_columns(dprobs);
  auto derivative = make_tensor_like<float>(rows);  // of the softcap
  logits.apply(
      rows, key, [&](int) { return slope; }, [&](int j) { return query(j) + band.diagonal(); },
      [&](int i, int j, float tanh) { derivative(i, j) = 1.f - tanh * tanh; });
  if (!band.transposed().covers(problem.first_key, problem.first_key + Instance::kBlockN - 1,
                                first_query, first_query + Instance::kBlockM - 1)) {
    mask_scores(rows, band.transposed(), key, query);
  }
  CUTE_UNROLL
  for (int j = 0; j < size<1>(rows); ++j) {
    const int column = positions.column(j);
    const float lse = shared.lse[column], d = shared.d[column];
    // a row that saw no key has probabilities of 0
    const float shift = lse == -INFINITY ? INFINITY : lse * kLog2E;
    CUTE_UNROLL
    for (int i = 0; i < size<0>(rows); ++i) {
      const float prob = exp2_fast(rows(i, j) * logits.factor - shift);
      float dprob = drows(i, j);
      rows(i, j) = prob;
      if constexpr (kFeatures.dropout) {
        if (!shared.dropout.keeps(column, problem.first_key, positions.row(i))) {
          rows(i, j) = dprob = 0.f;
        }
      }
      drows(i, j) = prob * (dprob - d);
      if constexpr (kFeatures.softcap) drows(i, j) *= derivative(i, j);
    }
  }
}

// Add `dq` (kBlockM, head_dim), times `scale`, to the accumulator, or write it there.
template <class Instance, class Accumulator>
__device__ void add_dq(Accumulator& dq, const DenseRows<float>& target, int first_query,
                       int seqlen_q, int head_dim, float scale) {
  const typename Instance::QueryPositions positions(remade(threadIdx.x));
  auto rows = rows_and_columns(dq);
  CUTE_UNROLL
  for (int i = 0; i < size<0>(rows); ++i) {
    const int query = first_query + positions.row(i);
    if (query >= seqlen_q) continue;
    float* row = target(query, positions.first_column);
    CUTE_UNROLL
    for (int j = 0; j < size<1>(rows); j += 2) {
      if (positions.column(j) >= head_dim) continue;
      float* place = row + positions.column(j) - positions.first_column;
      const float first = rows(i, j) * scale, second = rows(i, j + 1) * scale;
      if constexpr (Instance::kFeatures.deterministic) {
        *reinterpret_cast<float2*>(place) = {first, second};
      } else {
        atomicAdd(place, first);
        atomicAdd(place + 1, second);
      }
    }
  }
}

// dK or dV (kBlockN, head dim), times `scale`, through `tile` to memory.
template <class Instance, class Element>
__device__ void store_key_gradient(typename Instance::KeyAccumulator& gradient, float scale,
                                   Element* tile, const DenseRows<Element>& target, int first_key,
                                   int seqlen_k, int columns) {
  CUTE_UNROLL
  for (int i = 0; i < size(gradient); ++i) gradient(i) *= scale;
  using Layout = typename Instance::Keys::Rows;
  const Copy_Atom<AutoVectorizingCopy, Element> copy_pairs;
  const auto to_shared =
      make_tiled_copy_C(copy_pairs, typename Instance::KeyMma{}).get_slice(threadIdx.x);
  const auto converted = convert<Element>(gradient);
  auto shared = make_tensor(make_smem_ptr(tile), Layout{});
  copy(copy_pairs, to_shared.retile_S(converted), to_shared.partition_D(shared));
  __syncthreads();
  store_tile<typename Instance::KeyThreads, Layout>(tile, target, first_key, seqlen_k, columns,
                                                    threadIdx.x);
}

// dK and dV of the problem's keys, and their share of dQ.
template <class Instance, class Problem>
__device__ void differentiate_keys(typename Instance::Shared& shared, const BackwardParams& p,
                                   const Problem& problem) {
  using Element = typename Instance::Element;
  using Queries = typename Instance::Queries;
  using Keys = typename Instance::Keys;
  using Scores = typename Instance::Scores;
  constexpr auto kFeatures = Instance::kFeatures;
  constexpr int kBlockM = Instance::kBlockM, kBlockN = Instance::kBlockN;
  const int thread = threadIdx.x, score_thread = thread % Instance::kKeyThreads;
  const auto& sequence = problem.sequence;

  const auto tile = [](auto* data, auto layout) {
    return make_tensor(make_smem_ptr(data), layout);
  };
  const auto q = tile(shared.q, typename Queries::Rows{});
  const auto qt = tile(shared.q, typename Queries::Transposed{});
  const auto dout = tile(shared.dout, typename Queries::Rows{});
  const auto doutt = tile(shared.dout, typename Queries::Transposed{});
  const auto k = tile(shared.k, typename Keys::Rows{});
  const auto kt = tile(shared.k, typename Keys::Transposed{});
  const auto v = tile(shared.v, typename Keys::Rows{});
  auto dscores = tile(shared.dscores, typename Scores::Rows{});
  const auto dscorest = tile(shared.dscores, typename Scores::Transposed{});
  const typename Instance::ScoreMma score_mma;
  const typename Instance::KeyMma key_mma;
  const typename Instance::QueryMma query_mma;
  const Copy_Atom<AutoVectorizingCopy, Element> copy_pairs;

  const auto load_queries = [&](int block) {
    const int first = block * kBlockM, t = remade(thread);
    load_tile<typename Instance::QueryThreads, typename Queries::Rows>(
        shared.q, problem.q, first, sequence.seqlen_q, p.head_dim, t);
    load_tile<typename Instance::QueryThreads, typename Queries::Rows>(
        shared.dout, problem.dout, first, sequence.seqlen_q, p.head_dim_v, t);
    load_row_floats<kBlockM>(shared.lse, problem.lse, first, sequence.seqlen_q, t);
    load_row_floats<kBlockM>(shared.d, problem.d, first, sequence.seqlen_q, t);
    cp_async_fence();
  };

  const Band<kFeatures.masked> band{sequence.seqlen_q, sequence.seqlen_k, p.window_left,
                                    p.window_right};
  const int last_key = min(problem.first_key + kBlockN, sequence.seqlen_k) - 1;
  const auto blocks = band.transposed().template key_blocks<kBlockM>(problem.first_key, last_key);
  if (blocks.begin < blocks.end) {
    load_tile<typename Instance::KeyThreads, typename Keys::Rows>(
        shared.k, problem.k, problem.first_key, sequence.seqlen_k, p.head_dim, thread);
    load_tile<typename Instance::KeyThreads, typename Keys::Rows>(
        shared.v, problem.v, problem.first_key, sequence.seqlen_k, p.head_dim_v, thread);
    load_queries(blocks.begin);
  }

  const float slope = alibi_slope<kFeatures.alibi>(p, problem.batch, problem.head);
  const std::conditional_t<kFeatures.dropout, Dropout, NoDropout> dropout(p, problem.batch,
                                                                          problem.head);
  const float kept = kFeatures.dropout ? 1.f / (1.f - p.dropout_p) : 1.f;
  typename Instance::KeyAccumulator dk, dv;
  clear(dk);
  clear(dv);
  for (int block = blocks.begin; block < blocks.end; ++block) {
    const int first_query = block * kBlockM;
    if constexpr (kFeatures.dropout) {
      shared.dropout.fill(dropout, first_query, problem.first_key, thread);
    }
    cp_async_wait<0>();
    __syncthreads();
    auto probs = partition_fragment_C(score_mma, Shape<Int<kBlockN>, Int<kBlockM>>{});
    auto dprobs = partition_fragment_C(score_mma, Shape<Int<kBlockN>, Int<kBlockM>>{});
    clear(probs);
    clear(dprobs);
    multiply_shared(probs, k, q, score_mma, LoadRows<Element>{}, LoadRows<Element>{},
                    remade(score_thread));
    multiply_shared(dprobs, v, dout, score_mma, LoadRows<Element>{}, LoadRows<Element>{},
                    remade(score_thread));
    differentiate<Instance>(probs, dprobs, shared, p, problem, first_query, slope);

    auto dscores_operand = convert<Element>(dprobs);
    if (thread < Instance::kKeyThreads) {
      const auto to_shared = make_tiled_copy_C(copy_pairs, score_mma).get_slice(remade(thread));
      copy(copy_pairs, to_shared.retile_S(dscores_operand), to_shared.partition_D(dscores));
    }
    auto probs_operand = convert<Element>(probs);
    multiply_registers(dv, as_operand(probs_operand), doutt, key_mma, LoadColumns<Element>{},
                       remade(thread));
    multiply_registers(dk, as_operand(dscores_operand), qt, key_mma, LoadColumns<Element>{},
                       remade(thread));
    __syncthreads();
    if (block + 1 < blocks.end) load_queries(block + 1);
    auto dq = partition_fragment_C(query_mma, Shape<Int<kBlockM>, Int<Instance::kHeadDim>>{});
    clear(dq);
    multiply_shared(dq, dscorest, kt, query_mma, LoadColumns<Element>{}, LoadColumns<Element>{},
                    remade(thread));
    add_dq<Instance>(dq, problem.dq, first_query, sequence.seqlen_q, p.head_dim,
                     p.softmax_scale * kept);
  }

  __syncthreads();
  store_key_gradient<Instance>(dv, kept, shared.v, problem.dv, problem.first_key, sequence.seqlen_k,
                               p.head_dim_v);
  store_key_gradient<Instance>(dk, p.softmax_scale * kept, shared.k, problem.dk, problem.first_key,
                               sequence.seqlen_k, p.head_dim);
}

// A block of keys of one query head of one sequence.
template <class Instance>
__global__ void __launch_bounds__(Instance::kThreads)
    backward_kernel(const __grid_constant__ BackwardParams p) {
  using Element = typename Instance::Element;
  extern __shared__ __align__(128) char memory[];

  const int blocks_n = ceil_div(p.seqlen_k, Instance::kBlockN), block_n = blockIdx.x % blocks_n;
  const int head = blockIdx.x / blocks_n % p.nheads_q, batch = blockIdx.x / blocks_n / p.nheads_q;
  const int head_k = head / (p.nheads_q / p.nheads_k), first_key = block_n * Instance::kBlockN;
  const auto sequence = sequence_of<Instance::kFeatures.varlen>(p, batch);
  if (first_key >= sequence.seqlen_k) return;

  const auto rows = [&](auto* tensor, const Strides& strides, int before, int h) {
    return DenseRows<std::remove_pointer_t<decltype(tensor)>>{
        tensor + head_offset(strides, batch, before, h), strides.row};
  };
  const auto input = [&](const void* tensor, const Strides& strides, int before, int h) {
    return rows(static_cast<const Element*>(tensor), strides, before, h);
  };
  const auto output = [&](void* tensor, const Strides& strides) {
    return rows(static_cast<Element*>(tensor), strides, sequence.first_k, head);
  };
  float* dq = p.dq_accumulator;
  if constexpr (Instance::kFeatures.deterministic) dq += int64_t{block_n} * p.dq_split_stride;
  const int64_t lse = lse_offset(p, batch, sequence.first_q, head);
  const BackwardProblem<Element> problem{input(p.q, p.q_strides, sequence.first_q, head),
                                         input(p.k, p.k_strides, sequence.first_k, head_k),
                                         input(p.v, p.v_strides, sequence.first_k, head_k),
                                         input(p.dout, p.dout_strides, sequence.first_q, head),
                                         output(p.dk, p.dk_strides),
                                         output(p.dv, p.dv_strides),
                                         rows(dq, p.dq_strides, sequence.first_q, head),
                                         p.softmax_lse + lse,
                                         p.softmax_d + lse,
                                         sequence,
                                         head,
                                         batch,
                                         first_key};
  differentiate_keys<Instance>(*reinterpret_cast<typename Instance::Shared*>(memory), p, problem);
}

template <class Instance>
void launch_backward(const BackwardParams& p, cudaStream_t stream) {
  launch(backward_kernel<Instance>,
         int64_t{ceil_div(p.seqlen_k, Instance::kBlockN)} * p.nheads_q * p.batch,
         Instance::kThreads, Instance::kSharedBytes, p, stream);
}

}  // namespace flash_attn::cuda::sm80
