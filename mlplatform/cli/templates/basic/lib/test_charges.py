import pandas as pd
from charges import ChargesPerMonth


def test_a_new_customer_gets_the_usual_amount():
    known = pd.DataFrame({"tenure": [10, 20, 30], "total_charges": [100.0, 400.0, 900.0]})
    transform = ChargesPerMonth()
    transform.fit(known, pd.Series([0, 1, 0]))
    new = pd.DataFrame({"tenure": [5, 0], "total_charges": [60.0, 0.0]})
    assert transform.transform(new)["charges_per_month"].tolist() == [12.0, 20.0]
