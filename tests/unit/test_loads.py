from hfserve.doors.loads import Loads


def test_who_has_work_passes_on_to_who_has_none_and_else_only_what_is_more_than_a_batch(tmp_path):
    first, second = Loads(tmp_path, 0, 3), Loads(tmp_path, 1, 3)  # the third has not begun
    assert first.idler(100) is second.idler(100) is None
    first.add(10)
    assert first.idler(100) == 1 and second.idler(100) is None
    second.add(5)
    assert first.idler(100) is second.idler(100) is None
    first.add(100)
    assert first.idler(100) == 1 and second.idler(100) is None
    first.add(-105)
    assert first.idler(100) is second.idler(100) is None
    third = Loads(tmp_path, 2, 3)
    assert first.idler(100) == second.idler(100) == 2 and third.idler(100) is None


def test_who_leaves_is_passed_nothing_and_passes_on_what_comes(tmp_path):
    first, second = Loads(tmp_path, 0, 2), Loads(tmp_path, 1, 2)
    second.add(7)
    first.leave()
    first.add(-3)
    assert second.idler(1) is None and first.idler(1000) == 1
    second.leave()
    assert first.idler(1) is second.idler(1) is None


def test_a_new_worker_in_a_slot_begins_with_nothing(tmp_path):
    first, second = Loads(tmp_path, 0, 2), Loads(tmp_path, 1, 2)
    second.add(50)
    first.add(1)
    assert first.idler(100) is None
    Loads(tmp_path, 1, 2)
    assert first.idler(100) == 1
