PAIRS = (("커피 한잔 어때?", "How about coffee?"),)
