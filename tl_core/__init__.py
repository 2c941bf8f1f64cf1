"""How transfer learning works: data, episodes, backbones, training, fine-tuning, scoring, search and export."""
