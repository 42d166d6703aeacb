hello ${name}, you have ${upper("mail")}%{ if n > 1 } (${n})%{ endif }
