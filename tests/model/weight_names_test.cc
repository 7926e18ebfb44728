#include "model/weight_names.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

using Names = std::vector<std::string>;

TEST(WeightNames, TheNameItselfIsLookedForFirstThenOldEndingsThenWithoutPrefix) {
  EXPECT_EQ(names_in_files("bert.encoder.layer.3.output.LayerNorm.weight"),
            (Names{"bert.encoder.layer.3.output.LayerNorm.weight", "bert.encoder.layer.3.output.LayerNorm.gamma",
                   "encoder.layer.3.output.LayerNorm.weight", "encoder.layer.3.output.LayerNorm.gamma"}));
  EXPECT_EQ(names_in_files("roberta.embeddings.LayerNorm.bias"),
            (Names{"roberta.embeddings.LayerNorm.bias", "roberta.embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias",
                   "embeddings.LayerNorm.beta"}));
  EXPECT_EQ(names_in_files("transformer.h.0.ln_1.weight"), (Names{"transformer.h.0.ln_1.weight", "h.0.ln_1.weight"}));
  EXPECT_EQ(names_in_files("model.norm.weight"), (Names{"model.norm.weight", "norm.weight"}));
  EXPECT_EQ(names_in_files("lm_head.weight"), (Names{"lm_head.weight"}));
}

TEST(WeightNames, TheOutputLayersBiasStandsInEitherPlace) {
  EXPECT_EQ(names_in_files("cls.predictions.bias"), (Names{"cls.predictions.bias", "cls.predictions.decoder.bias"}));
  EXPECT_EQ(names_in_files("cls.predictions.decoder.bias"),
            (Names{"cls.predictions.decoder.bias", "cls.predictions.bias"}));
  EXPECT_EQ(names_in_files("lm_head.bias"), (Names{"lm_head.bias", "lm_head.decoder.bias"}));
  EXPECT_EQ(names_in_files("lm_head.decoder.weight"), (Names{"lm_head.decoder.weight"}));
}

TEST(WeightNames, EndingsTurnToAndFro) {
  EXPECT_EQ(with_new_ending("cls.predictions.transform.LayerNorm.gamma"), "cls.predictions.transform.LayerNorm.weight");
  EXPECT_EQ(with_new_ending("LayerNorm.beta"), "LayerNorm.bias");
  EXPECT_EQ(with_old_ending("bert.embeddings.LayerNorm.weight"), "bert.embeddings.LayerNorm.gamma");
  EXPECT_EQ(with_old_ending("bert.embeddings.LayerNorm.bias"), "bert.embeddings.LayerNorm.beta");
  // Of other layers gamma is what it is called, and dense.weight is no layer norm's.
  for (const std::string name : {"layer.0.gamma", "xLayerNorm.gamma", "h.LayerNorm.gamma.x", "gamma", ""})
    EXPECT_EQ(with_new_ending(name), name);
  for (const std::string name : {"dense.weight", "h.0.ln_1.weight", "MyLayerNorm.bias"}) EXPECT_EQ(with_old_ending(name), name);
}

}  // namespace
}  // namespace trireme
