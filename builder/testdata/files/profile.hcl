name  = "own"
title = "Our own"

controls = {
  linux = ["E03", "E99"]
  sunos = []
}
