// Normalisation of whole tensors. Rows are cut into jobs by the item and the number of channels alone, so that neither the
// number of threads nor the rest of the batch changes the order of a sum.
#include "norms.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "parallel.hpp"

namespace aprcnn {

namespace {

template <class T>
const NormLoops<T>& loops();
template <>
const NormLoops<float>& loops<float>() { return norms_table().single; }
template <>
const NormLoops<uint16_t>& loops<uint16_t>() { return norms_table().half; }

struct Job {
    int64_t item, first, last;
};

// As many rows are glued to one as make it fill registers: 5 channels are loops over 80 columns.
struct Plan {
    int64_t channels, glued, width;
    std::vector<Job> jobs;
    std::vector<int64_t> job_starts;  // of every item, and one more

    Plan(const int64_t* starts, int64_t items, int64_t channels_) : channels(channels_) {
        if (channels < 1) throw std::invalid_argument("expected at least one channel");
        const int64_t lanes = norms_table().lanes;
        glued = lanes / std::gcd(channels, lanes);
        width = glued * channels;
        const int64_t rows = std::max<int64_t>(8, 65536 / width) * glued;
        for (int64_t item = 0; item < items; ++item) {
            job_starts.push_back(static_cast<int64_t>(jobs.size()));
            if (starts[item] < 0 || starts[item] > starts[item + 1]) throw std::invalid_argument("rows of items do not ascend");
            for (int64_t row = starts[item]; row < starts[item + 1]; row += rows)
                jobs.push_back({item, row, std::min(row + rows, starts[item + 1])});
        }
        job_starts.push_back(static_cast<int64_t>(jobs.size()));
    }

    int64_t count() const { return static_cast<int64_t>(jobs.size()); }

    // Values of every channel, once for each of the glued rows.
    template <class Get>
    void repeat(float* to, const Get& get) const {
        for (int64_t c = 0; c < channels; ++c) to[c] = get(c);
        for (int64_t u = 1; u < glued; ++u) std::copy(to, to + channels, to + u * channels);
    }

    // Last job first: what a pass before this one left in the caches is used.
    template <class Work>
    void backwards(int threads, const Work& work) const {
        parallel_for(count(), threads, [&](int64_t i, int, const StopFlag&) { work(jobs[count() - 1 - i]); });
    }
};

// Moments of glued columns become those of channels. All have the same count.
void unglue(const Plan& plan, const double* wide_mean, const double* wide_squares, int64_t rows, double* mean, double* squares) {
    for (int64_t c = 0; c < plan.channels; ++c) {
        double total = 0.0, spread = 0.0;
        for (int64_t u = 0; u < plan.glued; ++u) total += wide_mean[u * plan.channels + c];
        mean[c] = total / static_cast<double>(plan.glued);
        for (int64_t u = 0; u < plan.glued; ++u) {
            const double away = wide_mean[u * plan.channels + c] - mean[c];
            spread += wide_squares[u * plan.channels + c] + static_cast<double>(rows) * away * away;
        }
        squares[c] = spread;
    }
}

// Mean and squares [channels] of one job.
template <class T>
void job_moments(const T* x, const Plan& plan, const Job& job, double* mean, double* squares) {
    const int64_t rows = (job.last - job.first) / plan.glued;
    const T* from = x + job.first * plan.channels;
    std::vector<double> wide(2 * plan.width);
    loops<T>().moments(from, rows, plan.width, wide.data(), wide.data() + plan.width);
    unglue(plan, wide.data(), wide.data() + plan.width, rows, mean, squares);
    // Rows that fill no glued one are joined one by one.
    for (int64_t row = job.first + rows * plan.glued; row < job.last; ++row) {
        const double before = static_cast<double>(row - job.first), share = 1.0 / (before + 1.0);
        for (int64_t c = 0; c < plan.channels; ++c) {
            const double step = static_cast<double>(widened(x[row * plan.channels + c])) - mean[c];
            squares[c] += step * step * before * share;
            mean[c] += step * share;
        }
    }
}

// Parameters of the columns of every item, from its statistics.
struct Maps {
    const Plan& plan;
    std::vector<float> values;  // [items][centre, scale, shift][width]

    Maps(const Plan& plan_, Items items, const double* mean, const double* rstd, const float* weight, const float* bias)
        : plan(plan_), values(items.count * 3 * plan.width) {
        const int64_t each = items.channels / items.groups;
        for (int64_t item = 0; item < items.count; ++item) {
            const double* means = mean + item * items.groups;
            const double* rstds = rstd + item * items.groups;
            const auto scale = [&](int64_t c) { return rstds[c / each] * (weight ? static_cast<double>(weight[c]) : 1.0); };
            float* to = values.data() + item * 3 * plan.width;
            plan.repeat(to, [&](int64_t c) { return static_cast<float>(means[c / each]); });
            plan.repeat(to + plan.width, [&](int64_t c) { return static_cast<float>(scale(c)); });
            // What rounding took from the mean goes into the shift.
            plan.repeat(to + 2 * plan.width, [&](int64_t c) {
                return static_cast<float>((bias ? static_cast<double>(bias[c]) : 0.0) - rest(means[c / each]) * scale(c));
            });
        }
    }
    static double rest(double mean) { return mean - static_cast<double>(static_cast<float>(mean)); }
    Affine of(int64_t item) const {
        const float* at = values.data() + item * 3 * plan.width;
        return {at, at + plan.width, at + 2 * plan.width};
    }
};

struct RepeatedMap {
    std::vector<float> values;
    Affine affine;
    RepeatedMap(const Plan& plan, Affine given) : values(3 * plan.width) {
        const float* from[3] = {given.centre, given.scale, given.shift};
        for (int i = 0; i < 3; ++i) plan.repeat(values.data() + i * plan.width, [&](int64_t c) { return from[i][c]; });
        affine = {values.data(), values.data() + plan.width, values.data() + 2 * plan.width};
    }
};

// Sums over each job's rows: sums [jobs][plain, centred][channels].
template <class T, class AffineOf>
std::vector<double> back_sums(const T* grad, const T* x, const Plan& plan, const AffineOf& affine, bool relu, int threads) {
    const int64_t channels = plan.channels;
    std::vector<double> sums(plan.count() * 2 * channels, 0.0);
    parallel_for(plan.count(), threads, [&](int64_t i, int, const StopFlag&) {
        const Job& job = plan.jobs[i];
        std::vector<double> wide(2 * plan.width, 0.0);
        loops<T>().back_sums(grad + job.first * channels, x + job.first * channels, (job.last - job.first) * channels,
                             plan.width, affine(job.item), relu, wide.data(), wide.data() + plan.width);
        for (int64_t kind = 0; kind < 2; ++kind)
            for (int64_t c = 0; c < plan.width; ++c)
                sums[(2 * i + kind) * channels + c % channels] += wide[kind * plan.width + c];
    });
    return sums;
}

void item_statistics(const Plan& plan, Items items, int64_t item, const double* means, const double* squares, double eps,
                     double* mean, double* rstd) {
    const int64_t each = items.channels / items.groups;
    const int64_t from = plan.job_starts[item], to = plan.job_starts[item + 1];
    const double total = static_cast<double>((items.starts[item + 1] - items.starts[item]) * each);
    for (int64_t g = 0; g < items.groups; ++g) {
        double sum = 0.0, spread = 0.0;
        const auto over = [&](const auto& work) {
            for (int64_t j = from; j < to; ++j)
                for (int64_t c = g * each; c < (g + 1) * each; ++c)
                    work(j * items.channels + c, static_cast<double>(plan.jobs[j].last - plan.jobs[j].first));
        };
        over([&](int64_t at, double rows) { sum += means[at] * rows; });
        const double centre = total > 0.0 ? sum / total : 0.0;
        over([&](int64_t at, double rows) { spread += squares[at] + rows * (means[at] - centre) * (means[at] - centre); });
        mean[g] = centre;
        rstd[g] = 1.0 / std::sqrt((total > 0.0 ? spread / total : 0.0) + eps);
    }
}

}  // namespace

template <class T>
void group_norm(const T* x, Items items, const float* weight, const float* bias, double eps, bool relu, T* out, double* mean,
                double* rstd, int threads) {
    const Plan plan(items.starts, items.count, items.channels);
    const int64_t channels = items.channels;
    std::vector<double> means(plan.count() * channels), squares(plan.count() * channels);
    parallel_for(plan.count(), threads, [&](int64_t i, int, const StopFlag&) {
        job_moments(x, plan, plan.jobs[i], means.data() + i * channels, squares.data() + i * channels);
    });
    for (int64_t item = 0; item < items.count; ++item)
        item_statistics(plan, items, item, means.data(), squares.data(), eps, mean + item * items.groups,
                        rstd + item * items.groups);
    const Maps maps(plan, items, mean, rstd, weight, bias);
    plan.backwards(threads, [&](const Job& job) {
        const int64_t at = job.first * channels;
        loops<T>().apply(x + at, (job.last - job.first) * channels, plan.width, maps.of(job.item), relu, out + at);
    });
}

template <class T>
void group_norm_back(const T* grad, const T* x, Items items, const double* mean, const double* rstd, const float* weight,
                     const float* bias, bool relu, T* grad_x, double* grad_weight, double* grad_bias, int threads) {
    const Plan plan(items.starts, items.count, items.channels);
    const int64_t channels = items.channels, groups = items.groups, each = channels / groups;
    const Maps maps(plan, items, mean, rstd, weight, bias);
    const std::vector<double> sums = back_sums(grad, x, plan, [&](int64_t i) { return maps.of(i); }, relu, threads);
    std::fill(grad_weight, grad_weight + channels, 0.0);
    std::fill(grad_bias, grad_bias + channels, 0.0);
    std::vector<float> lines(items.count * 3 * plan.width);
    std::vector<double> plain(channels), normal(channels), slope(groups), offset(groups);
    for (int64_t item = 0; item < items.count; ++item) {
        const double* means = mean + item * groups;
        const double* rstds = rstd + item * groups;
        std::fill(plain.begin(), plain.end(), 0.0);
        std::fill(normal.begin(), normal.end(), 0.0);
        for (int64_t j = plan.job_starts[item]; j < plan.job_starts[item + 1]; ++j)
            for (int64_t c = 0; c < channels; ++c) {
                plain[c] += sums[2 * j * channels + c];
                normal[c] += sums[(2 * j + 1) * channels + c];
            }
        const auto factor = [&](int64_t c) { return weight ? static_cast<double>(weight[c]) : 1.0; };
        const double share = 1.0 / std::max<double>(1.0, static_cast<double>((items.starts[item + 1] - items.starts[item]) * each));
        for (int64_t g = 0; g < groups; ++g) {
            double mean_grad = 0.0, mean_product = 0.0;
            for (int64_t c = g * each; c < (g + 1) * each; ++c) {
                // Products were summed around the rounded mean.
                normal[c] = rstds[g] * (normal[c] - Maps::rest(means[g]) * plain[c]);
                grad_weight[c] += normal[c];
                grad_bias[c] += plain[c];
                mean_grad += share * factor(c) * plain[c];
                mean_product += share * factor(c) * normal[c];
            }
            slope[g] = -rstds[g] * rstds[g] * mean_product;
            offset[g] = -rstds[g] * mean_grad - slope[g] * Maps::rest(means[g]);
        }
        float* to = lines.data() + item * 3 * plan.width;
        plan.repeat(to, [&](int64_t c) { return static_cast<float>(factor(c) * rstds[c / each]); });
        plan.repeat(to + plan.width, [&](int64_t c) { return static_cast<float>(slope[c / each]); });
        plan.repeat(to + 2 * plan.width, [&](int64_t c) { return static_cast<float>(offset[c / each]); });
    }
    plan.backwards(threads, [&](const Job& job) {
        const int64_t at = job.first * channels;
        const float* line = lines.data() + job.item * 3 * plan.width;
        loops<T>().back(grad + at, x + at, (job.last - job.first) * channels, plan.width, maps.of(job.item), relu,
                        {line, line + plan.width, line + 2 * plan.width}, grad_x + at);
    });
}

template <class T>
void scale_shift(const T* x, int64_t rows, int64_t channels, Affine affine, bool relu, T* out, int threads) {
    const int64_t starts[2] = {0, rows};
    const Plan plan(starts, 1, channels);
    const RepeatedMap map(plan, affine);
    plan.backwards(threads, [&](const Job& job) {
        const int64_t at = job.first * channels;
        loops<T>().apply(x + at, (job.last - job.first) * channels, plan.width, map.affine, relu, out + at);
    });
}

template <class T>
void scale_shift_back(const T* grad, const T* x, int64_t rows, int64_t channels, Affine affine, bool relu, T* grad_x,
                      double* grad_scale, double* grad_shift, int threads) {
    const int64_t starts[2] = {0, rows};
    const Plan plan(starts, 1, channels);
    const RepeatedMap map(plan, affine);
    const std::vector<double> sums = back_sums(grad, x, plan, [&](int64_t) { return map.affine; }, relu, threads);
    for (int64_t c = 0; c < channels; ++c) {
        grad_scale[c] = grad_shift[c] = 0.0;
        for (int64_t j = 0; j < plan.count(); ++j) {
            grad_shift[c] += sums[2 * j * channels + c];
            grad_scale[c] += sums[(2 * j + 1) * channels + c];
        }
    }
    plan.backwards(threads, [&](const Job& job) {
        const int64_t at = job.first * channels;
        loops<T>().back(grad + at, x + at, (job.last - job.first) * channels, plan.width, map.affine, relu,
                        {map.affine.scale, nullptr, nullptr}, grad_x + at);
    });
}

#define APRCNN_NORMS_OF(T)                                                                                                   \
    template void group_norm<T>(const T*, Items, const float*, const float*, double, bool, T*, double*, double*, int);       \
    template void group_norm_back<T>(const T*, const T*, Items, const double*, const double*, const float*, const float*,    \
                                     bool, T*, double*, double*, int);                                                       \
    template void scale_shift<T>(const T*, int64_t, int64_t, Affine, bool, T*, int);                                         \
    template void scale_shift_back<T>(const T*, const T*, int64_t, int64_t, Affine, bool, T*, double*, double*, int);
APRCNN_NORMS_OF(float)
APRCNN_NORMS_OF(uint16_t)

}  // namespace aprcnn
